package vllmsim

import (
	"errors"
	"fmt"
	"time"
)

// DefaultModel is the model that is served when none is named.
const DefaultModel = "TinyLlama/TinyLlama-1.1B-Chat-v1.0"

// Config says what the server pretends to be. The zero Config is
// TinyLlama-1.1B on one RTX 3090; docs/simulator.md says where each default
// comes from.
type Config struct {
	// Models are the names that requests may ask for; the first is the base
	// model, the others are further names of it. Empty is [DefaultModel].
	Models []string
	// APIKeys are the bearer tokens that open /v1, as vLLM's --api-key. None
	// is no lock.
	APIKeys []string
	// Seed fixes all that is drawn by chance: texts, their lengths, and which
	// tokens share a chunk.
	Seed uint64

	// MaxNumSeqs is how many sequences run at once; more wait. 0 is 16.
	MaxNumSeqs int
	// MaxNumBatchedTokens is how many tokens one step computes at most;
	// longer prompts take several steps. 0 is 2048.
	MaxNumBatchedTokens int
	// MaxModelLen is how many tokens a prompt and its answer may have
	// together. 0 is 2048.
	MaxModelLen int
	// KVCacheTokens is how many tokens the KV cache holds, rounded down to
	// whole blocks of 16; at least MaxModelLen. 0 is 800000.
	KVCacheTokens int
	// MeanOutputTokens is the mean length of an answer that nothing cuts
	// short. 0 is 32.
	MeanOutputTokens float64

	// Cost is how long a step takes.
	Cost Cost

	// Faults are in force from the start; see [Fault].
	Faults []Fault
	// OnCrash is called when the crash fault is asked for; it should not
	// return. nil makes that fault an error.
	OnCrash func()
}

// Cost is the model of one engine step's duration: the sum of its terms. In
// each field 0 is the default and a negative value is none.
type Cost struct {
	// Base is what every step takes: reading the weights, launching kernels,
	// scheduling. 0 is 6.5 ms.
	Base time.Duration
	// PerSequence is added for each sequence in the step. 0 is 325 µs.
	PerSequence time.Duration
	// PerPrefillToken is added for each prompt token computed. 0 is 50 µs.
	PerPrefillToken time.Duration
	// PerContextToken is added for each token of context that attention
	// reads. 0 is 24 ns.
	PerContextToken time.Duration
}

// step is how long a step takes with so many sequences, prompt tokens to
// compute, and tokens of context.
func (c Cost) step(sequences, prefill, context int) time.Duration {
	return max(c.Base, 0) +
		time.Duration(sequences)*max(c.PerSequence, 0) +
		time.Duration(prefill)*max(c.PerPrefillToken, 0) +
		time.Duration(context)*max(c.PerContextToken, 0)
}

// WithDefaults is the config with every zero field filled in. It leaves c alone.
func (c Config) WithDefaults() Config {
	if len(c.Models) == 0 {
		c.Models = []string{DefaultModel}
	}
	orInt(&c.MaxNumSeqs, 16)
	orInt(&c.MaxNumBatchedTokens, 2048)
	orInt(&c.MaxModelLen, 2048)
	orInt(&c.KVCacheTokens, 800_000)
	if c.MeanOutputTokens == 0 {
		c.MeanOutputTokens = 32
	}
	orTime(&c.Cost.Base, 6500*time.Microsecond)
	orTime(&c.Cost.PerSequence, 325*time.Microsecond)
	orTime(&c.Cost.PerPrefillToken, 50*time.Microsecond)
	orTime(&c.Cost.PerContextToken, 24*time.Nanosecond)
	return c
}

func orInt(v *int, def int) {
	if *v == 0 {
		*v = def
	}
}

func orTime(v *time.Duration, def time.Duration) {
	if *v == 0 {
		*v = def
	}
}

// check names every fault of a config that has its defaults.
func (c Config) check() error {
	var errs []error
	least := func(name string, v, floor int) { // they are called as vllm-sim's flags
		if v < floor {
			errs = append(errs, fmt.Errorf("--%s is %d; use at least %d", name, v, floor))
		}
	}
	least("max-num-seqs", c.MaxNumSeqs, 1)
	least("max-num-batched-tokens", c.MaxNumBatchedTokens, 1)
	least("max-model-len", c.MaxModelLen, 2)
	if c.KVCacheTokens/blockSize*blockSize < c.MaxModelLen {
		// vLLM does not start either: one long request could never run.
		errs = append(errs, fmt.Errorf("--kv-cache-tokens is %d; use at least --max-model-len (%d), rounded up to blocks of %d",
			c.KVCacheTokens, c.MaxModelLen, blockSize))
	}
	if c.MeanOutputTokens < 1 {
		errs = append(errs, fmt.Errorf("--mean-output-tokens is %v; use at least 1", c.MeanOutputTokens))
	}
	for _, name := range c.Models {
		if name == "" {
			errs = append(errs, errors.New("a model name is empty"))
		}
	}
	for _, f := range c.Faults {
		if err := f.check(); err != nil {
			errs = append(errs, err)
		} else if f.Kind == crash {
			errs = append(errs, errors.New("--fault crash: ask for it while the server runs, with PUT /sim/faults"))
		}
	}
	return errors.Join(errs...)
}
