#pragma once
/// Signals that ask a run to stop at a good place: SIGTERM and SIGUSR1 as batch systems send them before the end of a
/// job, SIGINT from a terminal.

#include <string>

namespace espalier {

/// From now on those signals wait, also across an exec, until note_stop_signals() hears them: a program that is still
/// starting, or starting itself again, is not ended by one.
void hold_stop_signals();

/// From now on those signals are only noted, first those that wait, and the first rank says at once that it stops after
/// the present block. A second SIGINT ends the program as usual. Call once, before threads start.
void note_stop_signals();

/// They end the program again as usual: for a rank that fails while others may be ending it.
void heed_stop_signals();

/// Whether one has come; any thread.
bool stop_requested();
/// The first that came; 0 when none did.
int stop_signal();
/// "SIGUSR1".
std::string name_of_signal(int signal);

}  // namespace espalier
