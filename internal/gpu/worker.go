package gpu

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"
)

// workerName is the argument that makes a process the worker.
const workerName = "nvml-worker"

// The worker's ends of its pipes, after stdin, stdout and stderr, on which a
// driver's library may write what it likes.
const askFD, answersFD = 3, 4

// Worker is for the first line of main in every command that reads GPUs. In a
// process that was started as an NVML worker it does that work and never
// returns; in all others it does nothing.
func Worker() {
	if len(os.Args) != 2 || os.Args[1] != workerName {
		return
	}
	ask, answers := os.NewFile(askFD, "questions"), os.NewFile(answersFD, "answers")
	if s, err := ask.Stat(); err != nil || s.Mode()&os.ModeNamedPipe == 0 {
		fmt.Fprintf(os.Stderr, "%s is started by %s itself, and is of no use by hand\n", workerName, os.Args[0])
		os.Exit(2)
	}
	os.WriteFile("/proc/self/comm", []byte(workerName), 0) // for those who look at the list of processes
	work(ask, json.NewEncoder(answers))
	os.Exit(0)
}

// work says when the library is ready, and then answers a byte with faults and a
// collection. An error is its last answer. It ends with the questions, even in
// the middle of a call that never returns.
func work(ask io.Reader, answers *json.Encoder) {
	asked := make(chan struct{}, 1)
	go func() {
		for buf := make([]byte, 1); ; asked <- struct{}{} {
			if _, err := ask.Read(buf); err != nil {
				os.Exit(0)
			}
		}
	}()
	n, err := openNVML()
	if err == nil {
		answers.Encode(message{Ready: true})
	}
	for err == nil {
		<-asked
		for _, f := range n.faults() {
			answers.Encode(message{Fault: &f}) // at once: what follows may hang
		}
		began := time.Now()
		var c *Collection
		if c, err = n.collect(); err == nil {
			c.Took = time.Since(began)
			answers.Encode(message{Collection: c})
		}
	}
	answers.Encode(message{Error: err})
}

// self is this program, even if its file has been replaced.
func self() string {
	if runtime.GOOS == "linux" {
		return "/proc/self/exe"
	}
	path, _ := os.Executable()
	return path
}
