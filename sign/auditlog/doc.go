// Package auditlog keeps the log of a signing host: one JSON object a line, each with
// the hash of the line before it. Start with [Open] to append, and with [Verify] to
// check.
//
// The chain shows that a line was changed, taken out or put in between, to whoever
// knows the hash of a later line. It cannot show that the last lines are missing, and
// who may write the whole file can make another chain: note the head elsewhere.
package auditlog
