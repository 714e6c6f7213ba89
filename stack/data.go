package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/stack/monitor"
)

// kindFile says in a data folder whether what is there was simulated.
const kindFile = "kind"

// claim makes a data folder, and keeps apart what was simulated and what was
// real: a dashboard could not tell one from the other.
func claim(folder string, simulated bool) error {
	kind := "real"
	if simulated {
		kind = "simulated"
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return monitor.InWords(err)
	}
	file := filepath.Join(folder, kindFile)
	text, err := os.ReadFile(file)
	switch was := strings.TrimSpace(string(text)); {
	case err == nil && was != "" && was != kind:
		return fmt.Errorf("it holds %s data, and this run's are %s", was, kind)
	case err != nil && !errors.Is(err, os.ErrNotExist):
		return monitor.InWords(err)
	}
	if err := os.WriteFile(file, []byte(kind+"\n"), 0o600); err != nil {
		return monitor.InWords(err)
	}
	return room(folder)
}

// someRoom is what must be free beside the log that is read back.
const someRoom = 8 << 20

// room reports an error if the disk is full. Prometheus repairs its log when it
// starts after a crash, by writing it anew; with no room for that, what was in it
// is lost.
func room(folder string) error {
	need := int64(someRoom)
	segments, _ := filepath.Glob(filepath.Join(folder, "wal", "*"))
	for _, s := range segments {
		if info, err := os.Stat(s); err == nil && info.Mode().IsRegular() {
			need = max(need, someRoom+info.Size())
		}
	}
	f, err := os.CreateTemp(folder, "room-*")
	if err != nil {
		return monitor.InWords(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	for block := make([]byte, 1<<20); need > 0; need -= int64(len(block)) {
		if _, err := f.Write(block); err != nil {
			return monitor.InWords(err)
		}
	}
	return nil
}
