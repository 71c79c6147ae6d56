// Commands that can stop at a safe point catch signals; the others are ended by them, as by default.
#pragma once

namespace hax {

// SIGINT, SIGTERM, SIGUSR1 (batch systems send it some time before the end) and SIGHUP (unless it is ignored
// already, as by nohup) ask the work to stop at its next safe point; a second signal ends the program at
// once.
void catch_signals();
bool stop_requested();
int signal_exit_status();  // 128 + the signal's number: 130, 143, 138 or 129

// Closed pipes and limits on the size of files become errors of write(), which are told or passed over.
void ignore_write_signals();
// Descriptors 0, 1 and 2 that the caller closed become /dev/null: else the next file that is opened would
// get such a number, and what is said on stderr would land in it.
void open_standard_streams();

}  // namespace hax
