// Command vllm-sim stands in for a vLLM server where there is no GPU.
package main

import (
	"context"
	"os"
	"time"

	"github.com/alecthomas/kong"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
)

// uvicornKeepAlive is when vLLM's server closes idle connections
// (VLLM_HTTP_TIMEOUT_KEEP_ALIVE).
const uvicornKeepAlive = 5 * time.Second

type flags struct {
	Listen string   `default:"127.0.0.1:8000" placeholder:"HOST:PORT" help:"Address to listen on."`
	Model  []string `default:"${model}" placeholder:"NAME" help:"Model to serve; repeat it for further names of the first (default ${model})."`
	APIKey []string `name:"api-key" placeholder:"KEY" help:"Bearer token that opens /v1; repeat it for more. None opens it to everybody."`
	Seed   uint64   `default:"0" help:"Fixes what is drawn by chance: texts, lengths, which tokens share a chunk."`

	MaxNumSeqs          int     `default:"16" placeholder:"N" help:"Sequences that run at once (16)."`
	MaxNumBatchedTokens int     `default:"2048" placeholder:"N" help:"Tokens that one engine step computes at most (2048)."`
	MaxModelLen         int     `default:"2048" placeholder:"N" help:"Tokens of a prompt and its answer together (2048)."`
	KVCacheTokens       int     `name:"kv-cache-tokens" default:"800000" placeholder:"N" help:"Tokens that the KV cache holds (800000)."`
	MeanOutputTokens    float64 `default:"32" placeholder:"N" help:"Mean length of an answer that nothing cuts short (32)."`

	StepBase            time.Duration `default:"6.5ms" placeholder:"TIME" help:"What every engine step takes (6.5ms)."`
	StepPerSequence     time.Duration `default:"325us" placeholder:"TIME" help:"Added for each sequence in the step (325us)."`
	StepPerPrefillToken time.Duration `default:"50us" placeholder:"TIME" help:"Added for each prompt token computed (50us)."`
	StepPerContextToken time.Duration `default:"24ns" placeholder:"TIME" help:"Added for each token of context read (24ns)."`

	Fault []vllmsim.Fault `sep:";" placeholder:"KIND[,KEY=VALUE…]" help:"Something that goes wrong, such as stall,after=3,share=0.1; repeat it for more. docs/simulator.md lists the kinds."`

	daemon.LogFlags
	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

const name = "vllm-sim"

func main() {
	var f flags
	kong.Parse(&f, options()...)
	log, err := f.Logger(os.Stderr)
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	sim, err := vllmsim.New(f.config())
	if err != nil {
		daemon.Exit(name, daemon.Usage, err)
	}
	err = daemon.Server{
		Name: name, Listen: f.Listen, Handler: sim, KeepAlive: uvicornKeepAlive,
		Drain: func(context.Context) { sim.Close() },
		Log:   log,
		About: []any{"model", f.Model[0], "max_num_seqs", f.MaxNumSeqs},
	}.Run(context.Background())
	if err != nil {
		daemon.Exit(name, daemon.Failed, err)
	}
}

func options() []kong.Option {
	return []kong.Option{
		kong.Name(name),
		kong.Description("A vLLM server without a model: the same endpoints, bytes and metrics, with a model of the engine's timing behind them."),
		kong.DefaultEnvars("VLLM_SIM"),
		kong.Vars{"version": name + " " + daemon.Version(), "model": vllmsim.DefaultModel},
		kong.Exit(daemon.ParserExit),
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
		OnCrash: func() { os.Exit(daemon.Failed) },
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
