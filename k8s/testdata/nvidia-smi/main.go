// A fake nvidia-smi for cluster tests: it brings two GPUs to a node that has none.
// "nvidia-smi --install DIR" copies it to where a pod can have it from by hostPath.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// What it says of each GPU; all else is [N/A], as of a card that does not tell.
var gpus = []map[string]string{
	{"index": "0", "uuid": "GPU-11111111-0000-0000-0000-000000000000", "pci.bus_id": "00000000:01:00.0", "utilization.gpu": "42", "memory.used": "8123", "temperature.gpu": "61", "power.draw": "201.50"},
	{"index": "1", "uuid": "GPU-22222222-0000-0000-0000-000000000000", "pci.bus_id": "00000000:02:00.0", "utilization.gpu": "97", "memory.used": "20480", "temperature.gpu": "74", "power.draw": "344.10"},
}

var all = map[string]string{"name": "NVIDIA GeForce RTX 3090", "driver_version": "570.86.15", "memory.total": "24576", "mig.mode.current": "[N/A]", "power.limit": "350.00"}

func main() {
	var fields []string
	for i, arg := range os.Args[1:] {
		if arg == "--install" {
			install(os.Args[i+2])
		}
		if list, ok := strings.CutPrefix(arg, "--query-gpu="); ok {
			fields = strings.Split(list, ",")
		}
	}
	if fields == nil {
		fmt.Println("| NVIDIA-SMI 570.86.15   Driver Version: 570.86.15 |")
		fields = []string{"index", "name", "uuid"}
	}
	for _, gpu := range gpus {
		var cells []string
		for _, field := range fields {
			switch {
			case gpu[field] != "":
				cells = append(cells, gpu[field])
			case all[field] != "":
				cells = append(cells, all[field])
			default:
				cells = append(cells, "[N/A]")
			}
		}
		fmt.Println(strings.Join(cells, ", "))
	}
}

// install stays, so that a DaemonSet can be what runs it.
func install(dir string) {
	self, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, ".new"), self, 0o755)
	}
	if err == nil {
		err = os.Rename(filepath.Join(dir, ".new"), filepath.Join(dir, "nvidia-smi"))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println("installed")
	for {
		time.Sleep(time.Hour)
	}
}
