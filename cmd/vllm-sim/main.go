// Command vllm-sim stands in for a vLLM server where there is no GPU.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/vllm-gateway/vllm-gateway/internal/commandline"
	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// uvicornKeepAlive is when vLLM's server closes idle connections
// (VLLM_HTTP_TIMEOUT_KEEP_ALIVE).
const uvicornKeepAlive = 5 * time.Second

type flags struct {
	Listen string   `default:"127.0.0.1:8000" placeholder:"ADDR" help:"address for clients (${default})"`
	Model  []string `default:"${model}" placeholder:"NAME" help:"what it serves, repeatable (TinyLlama)"`
	APIKey []string `name:"api-key" placeholder:"KEY" help:"a key that opens /v1 (none: open); repeatable"`
	Seed   uint64   `default:"0" placeholder:"N" help:"what is drawn by chance goes by it (${default})"`

	MaxNumSeqs          int     `default:"16" placeholder:"N" help:"sequences that run at once (${default})"`
	MaxNumBatchedTokens int     `default:"2048" placeholder:"N" help:"tokens that one step computes (${default})"`
	MaxModelLen         int     `default:"2048" placeholder:"N" help:"tokens of a prompt and its answer (${default})"`
	KVCacheTokens       int     `name:"kv-cache-tokens" default:"800000" placeholder:"N" help:"tokens that the KV cache holds (${default})"`
	MeanOutputTokens    float64 `default:"32" placeholder:"N" help:"mean length of an answer (${default})"`

	StepBase            time.Duration `default:"6.5ms" placeholder:"TIME" help:"what each step takes (${default})"`
	StepPerSequence     time.Duration `default:"325us" placeholder:"TIME" help:"and for each sequence in it (${default})"`
	StepPerPrefillToken time.Duration `default:"50us" placeholder:"TIME" help:"and for each prompt token (${default})"`
	StepPerContextToken time.Duration `default:"24ns" placeholder:"TIME" help:"and for each token of context (${default})"`

	Fault []vllmsim.Fault `sep:";" placeholder:"KIND,KEY=VALUE" help:"what goes wrong (nothing); repeatable"`

	daemon.LogFlags
	Version commandline.Version `env:"-" help:"print the version and exit"`
}

func (f flags) Validate() error {
	var wrong []error
	refuse := func(is bool, format string, args ...any) {
		if is {
			wrong = append(wrong, fmt.Errorf(format, args...))
		}
	}
	if err := daemon.CheckListen(f.Listen); err != nil {
		refuse(true, "--listen: %w", err)
	}
	refuse(len(f.Model) == 0 || slices.Contains(f.Model, ""), "--model: there is no name in it; give one, or leave it out")
	refuse(f.APIKey != nil && len(f.APIKey) == 0 || slices.Contains(f.APIKey, ""), "--api-key: there is no key in it, and without any /v1 is open to everybody; give one, or leave it out")
	// Here, since 0 is the default of vllmsim.Config.
	for _, n := range []struct {
		flag  string
		value int
	}{{"max-num-seqs", f.MaxNumSeqs}, {"max-num-batched-tokens", f.MaxNumBatchedTokens}, {"max-model-len", f.MaxModelLen}, {"kv-cache-tokens", f.KVCacheTokens}} {
		refuse(n.value < 1, "--%s %d: write 1 or more", n.flag, n.value)
	}
	refuse(!(f.MeanOutputTokens >= 1), "--mean-output-tokens %v: write 1 or more", f.MeanOutputTokens)
	for _, n := range []struct {
		flag  string
		value time.Duration
	}{{"base", f.StepBase}, {"per-sequence", f.StepPerSequence}, {"per-prefill-token", f.StepPerPrefillToken}, {"per-context-token", f.StepPerContextToken}} {
		refuse(n.value < 0, "--step-%s %v: write 0s or more", n.flag, n.value)
	}
	return errors.Join(wrong...)
}

const name = "vllm-sim"

var program = commandline.Program{
	Name:    name,
	Version: daemon.FullVersion(),
	About: `vllm-sim is a vLLM server without a model: the same endpoints, bytes and
metrics, with a model of the engine's timing behind them.`,
	Examples: []string{
		"vllm-sim",
		"vllm-sim --listen 127.0.0.1:8001 --model m --model alias",
		"vllm-sim --fault 'stall,after=3,share=0.1'  # every tenth stream stalls",
	},
	Variables: "VLLM_SIM",
	Docs:      "docs/simulator.md",
	Words:     map[string]string{"model": vllmsim.DefaultModel},
}

func main() {
	var f flags
	typed := program.Parse(&f)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	typed.Warn(log)
	sim, err := vllmsim.New(f.config())
	if err != nil {
		typed.Exit(commandline.Usage, err)
	}
	err = daemon.Server{
		Name: name, Listen: f.Listen, Handler: sim, KeepAlive: uvicornKeepAlive,
		Drain: func(context.Context) { sim.Close() },
		Log:   log,
		About: []any{"model", f.Model[0], "max_num_seqs", f.MaxNumSeqs},
	}.Run(context.Background())
	if err != nil {
		typed.Exit(commandline.Failed, err)
	}
}

func (f flags) config() vllmsim.Config {
	return vllmsim.Config{
		Models: f.Model, APIKeys: f.APIKey, Seed: f.Seed,
		MaxNumSeqs: f.MaxNumSeqs, MaxNumBatchedTokens: f.MaxNumBatchedTokens,
		MaxModelLen: f.MaxModelLen, KVCacheTokens: f.KVCacheTokens, MeanOutputTokens: f.MeanOutputTokens,
		Cost: vllmsim.Cost{
			Base: orNone(f.StepBase), PerSequence: orNone(f.StepPerSequence),
			PerPrefillToken: orNone(f.StepPerPrefillToken), PerContextToken: orNone(f.StepPerContextToken),
		},
		Faults:  f.Fault,
		OnCrash: func() { os.Exit(commandline.Failed) },
	}
}

// orNone hands on a zero that was asked for, which Config would take for its
// default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}
