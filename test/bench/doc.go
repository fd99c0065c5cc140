// Command bench measures what mvsched adds to a bare REFRESH, beside what other ways to schedule refreshes add: on one
// throw-away server, in one run, in turn, round after round. It prints tables in Markdown and draws plots.
//
// Other work on the machine makes wall times wander. Two things are done about it: a ratio is taken within a round, between
// neighbours in time, and only then the median over the rounds; and beside the time there is the processor time that the
// server spent on it, which others disturb far less.
package main
