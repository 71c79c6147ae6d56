// Commands that can stop at a safe point catch signals; the others are ended by them, as by default.
#pragma once

namespace hax {

// SIGINT, SIGTERM and SIGHUP (unless it is ignored already, as by nohup) ask the work to stop at its next
// safe point; a second signal ends the program at once.
void catch_signals();
void ignore_closed_pipes();
bool stop_requested();
int signal_exit_status();  // 130, 143 or 129 after a signal

}  // namespace hax
