package mock

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"runtime/debug"
	"strings"
)

// Main is the command: it prints the addresses of its backends, a line of them, and
// runs until its stdin is closed, so that it never outlives who has started it.
func Main(args []string) error {
	flags := flag.NewFlagSet("bench mock", flag.ExitOnError)
	backends := flags.Int("backends", 2, "how many, each on a port of its own")
	models := flags.Int("models", 1, "how many each of them lists")
	flags.Parse(args)
	debug.SetGCPercent(800) // memory is not what matters here
	var addrs []string
	ended := make(chan error)
	for range *backends {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		addrs = append(addrs, l.Addr().String())
		s := &Server{Models: *models}
		go func() { ended <- s.Serve(l) }()
	}
	fmt.Println(strings.Join(addrs, " "))
	go func() {
		_, err := io.Copy(io.Discard, os.Stdin)
		ended <- err
	}()
	return <-ended
}
