// SIGINT and SIGTERM ask the work to stop at its next safe point; a second one ends the program at once.
#pragma once

namespace hax {

void catch_signals();
bool stop_requested();
int signal_exit_status();  // 130 or 143 after a signal

}  // namespace hax
