package main

import (
	"reflect"
	"testing"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

func parse(t *testing.T, args ...string) vllmsim.Config {
	t.Helper()
	var f flags
	if _, err := program.Read(&f, args); err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	cfg := f.config()
	cfg.OnCrash = nil // funcs do not compare
	return cfg
}

// The flags repeat the package's defaults for --help; this keeps them the same.
func TestFlagDefaultsAreThePackages(t *testing.T) {
	got, want := parse(t).WithDefaults(), vllmsim.Config{}.WithDefaults()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("without flags:\n got %+v\nwant %+v", got, want)
	}
}

func TestFlags(t *testing.T) {
	t.Setenv("VLLM_SIM_MAX_NUM_SEQS", "3")
	got := parse(t, "--model=a", "--model=b", "--step-base=0s", "--fault=stall,after=3,share=0.5", "--fault=unhealthy")
	if !reflect.DeepEqual(got.Models, []string{"a", "b"}) || got.MaxNumSeqs != 3 || got.Cost.Base >= 0 {
		t.Errorf("got %+v; want models a and b, 3 sequences from the environment, no base cost", got)
	}
	want := []vllmsim.Fault{{Kind: "stall", After: 3, Share: 0.5}, {Kind: "unhealthy"}}
	if !reflect.DeepEqual(got.Faults, want) {
		t.Errorf("faults %+v; want %+v", got.Faults, want)
	}
	if got := parse(t, "--fault=slow-health,delay=1s;unhealthy"); len(got.Faults) != 2 || got.Faults[0].Delay != time.Second {
		t.Errorf("faults in one flag: %+v; want two", got.Faults)
	}
}

func TestHelp(t *testing.T) {
	if err := commandline.Check(program, &flags{}, 32, "../.."); err != nil {
		t.Error(err)
	}
}

// What cannot be is refused, not replaced by a default.
func TestMistakes(t *testing.T) {
	for args, want := range map[string]string{
		"--model=":                 `--model: there is no name in it; give one, or leave it out`,
		"--api-key=":               `--api-key: there is no key in it, and without any /v1 is open to everybody; give one, or leave it out`,
		"--max-num-seqs=0":         `--max-num-seqs 0: write 1 or more`,
		"--mean-output-tokens=0":   `--mean-output-tokens 0: write 1 or more`,
		"--mean-output-tokens=NaN": `--mean-output-tokens NaN: write 1 or more`,
		"--step-base=-1s":          `--step-base -1s: write 0s or more`,
		"--seed=-1":                `--seed: "-1": write a whole number, 0 or more`,
		"--listen=8000":            `--listen: "8000" is no address to listen on; write host:port, or :port for all interfaces`,
		"--fault=boom":             `--fault: no fault kind "boom"; use one of crash, cut, error, reject, slow-first-token, slow-health, stall, unhealthy`,
		"--fault=crash":            `--fault crash: ask for it while the server runs, with PUT /sim/faults`,
		"--kv-cache-tokens=5":      `--kv-cache-tokens is 5; use at least --max-model-len (2048), rounded up to blocks of 16`,
	} {
		var f flags
		_, err := program.Read(&f, []string{args})
		if err == nil {
			_, err = vllmsim.New(f.config())
		}
		if err == nil || err.Error() != want {
			t.Errorf("%s:\n got %v\nwant %s", args, err, want)
		}
	}
}
