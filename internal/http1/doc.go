// Package http1 speaks HTTP/1.1: a server, and a client, that cost what nginx does.
//
// net/http's are made for all that HTTP can be used for. Before a stream of tokens
// they hold five goroutines and some 55 KiB for each, and wake threads for each event.
// Here a request has the goroutine of its connection, on both sides, and buffers are
// held only while something is in them. What is left out: trailers, answers that are
// written while the request is still read, and all leniency of parsing. HTTP/2 is
// net/http's.
//
// The files with tricks are quick_linux.go (reads and writes that do not wake threads)
// and hangup_linux.go (clients that leave, seen without a goroutine for each). The
// build tag plain leaves both out, as do other systems, connections over TLS, and
// those of tests in memory.
package http1
