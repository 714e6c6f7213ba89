package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

type checkConfig struct {
	File string `arg:"" help:"The file."`
}

func (checkConfig) Help() string {
	return `All that is wrong is on stderr, with exit code 2; else stdout says that it is
ok. It reads what the file refers to as well, and goes by flags and variables
as the gateway would. It connects to nothing.

Examples:
  vllm-gateway check-config gateway.yaml
  vllm-gateway check-config gateway.yaml --routing prefix  # beside this flag`
}

func (c checkConfig) run(typed *commandline.Line, f flags) {
	f.Config = c.File
	given := typed.Given()
	delete(given, "config")
	files := &daemon.Files{}
	s, err := settle(f, given, files)
	if err == nil {
		err = s.checkTLS(files)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, typed.Text(err)) // of each line it names the file
		os.Exit(commandline.Usage)
	}
	fmt.Printf("%s: ok: %s, %s", c.File, count(len(s.Backend), "backend"), count(len(s.gateway.Callers), "key"))
	if s.gateway.SharedLimits != nil {
		fmt.Print(", shared limits")
	}
	if s.TLSCert != "" {
		fmt.Print(", TLS")
	}
	fmt.Println()
	if s.unused > 0 {
		fmt.Printf("%s: the %s of the file would not be used: --api-key takes their place\n", c.File, count(s.unused, "key"))
	}
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

type hashKey struct {
	// Argument is there to say why it is not taken.
	Argument []string `arg:"" optional:"" hidden:"" passthrough:""`
}

func (hashKey) Help() string {
	return `Without anything on stdin it makes a new key, for its holder, and prints its
hash beside it, for the configuration file. The key is not shown again.

Examples:
  vllm-gateway hash-key
  vllm-gateway hash-key < key.txt  # the hash of this key alone`
}

func (h hashKey) run(typed *commandline.Line) {
	if len(h.Argument) > 0 {
		typed.Exit(commandline.Usage, errors.New("hash-key takes no key as an argument: all who list the processes of this machine would see it, and the shell's history keeps it. Give it on stdin, as in: vllm-gateway hash-key < key.txt"))
	}
	if !piped(os.Stdin) {
		key := secret.NewKey().Reveal()
		fmt.Printf("key:  %s\nhash: %s\n", key, secret.HashOf(key))
		fmt.Fprintf(os.Stderr, "\nThe key is for its holder and is not shown again. The hash is for the configuration file:\n\nkeys:\n  - name: alice\n    hash: %s\n", secret.HashOf(key))
		return
	}
	data, err := io.ReadAll(io.LimitReader(os.Stdin, maxSecret+1))
	key := strings.TrimRight(string(data), "\r\n")
	switch {
	case err != nil:
		err = fmt.Errorf("read a key from stdin: %w", err)
	case key == "":
		err = errors.New("stdin is empty: put a key there; or make a new one with: vllm-gateway hash-key < /dev/null")
	case len(data) > maxSecret:
		err = fmt.Errorf("what is on stdin is longer than %d bytes; put one key there", maxSecret)
	case strings.HasPrefix(key, "sha256:"):
		err = errors.New("what is on stdin is a hash already; put the key there")
	default:
		if err = checkKey(key); err != nil {
			err = fmt.Errorf("the key on stdin %w", err)
		}
	}
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	fmt.Println(secret.HashOf(key))
}

// piped reports whether somebody has put something on stdin: a pipe or a file, not a
// terminal, and not /dev/null, which programs get that have none.
func piped(stdin *os.File) bool {
	info, err := stdin.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice == 0
}
