// Package http1 speaks HTTP/1.1: a server, and a client, for streams of small events.
//
// net/http's are made for all that HTTP can be used for. Of a stream of tokens they
// hold five goroutines and some 55 KiB, and wake threads for each event. Here a request
// has the goroutine of its connection, on both sides, and buffers are held only while
// something is in them: an open stream weighs a third, and an event costs some 15 %
// less (docs/performance.md). What is left out: trailers, and answers that are written
// while the request is still read. What is accepted is what net/http accepts, or less,
// and is read the same. HTTP/2 is net/http's.
//
// The files with tricks are quick_linux.go (reads and writes that do not wake threads)
// and hangup_linux.go (clients that leave, seen without a goroutine for each). The
// build tag plain leaves both out, as do other systems, connections over TLS, and
// those of tests in memory.
package http1
