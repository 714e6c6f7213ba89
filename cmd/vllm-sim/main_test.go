package main

import (
	"reflect"
	"testing"
	"time"

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
