package main

import (
	"fmt"
	"net"
	"strings"

	"github.com/vllm-gateway/vllm-gateway/internal/daemon"
	"github.com/vllm-gateway/vllm-gateway/internal/vllmsim"
	"github.com/vllm-gateway/vllm-gateway/stack/page"
)

// hello is what somebody who has just started the stack wants to know.
func (s *stack) hello() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s %s\n\n", name, daemon.Version())
	line := func(what, where, about string) { fmt.Fprintf(&b, "  %-11s %-24s %s\n", what, where, about) }
	line("dashboard", browser(s.ports.dashboard), "open this one")
	gateway := ""
	if s.ports.gateway != nil {
		gateway = browser(s.ports.gateway)
		line("gateway", gateway, "OpenAI clients: base URL "+gateway+"/v1")
	}
	list := func(what string, urls addresses) {
		for _, url := range urls {
			line(what, url, "")
			what = ""
		}
	}
	list("gateway", s.flags.Gateway)
	line("Prometheus", browser(s.ports.prometheus), "data in "+s.data)
	if s.simulator != nil {
		line("vLLM", browser(s.ports.simulator), "simulated, as are its two GPUs")
		fmt.Fprintf(&b, "\nTry:\n\n  curl -N %s/v1/chat/completions -H 'Content-Type: application/json' -d '{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"Hello\"}]}'\n", gateway, vllmsim.DefaultModel)
	}
	list("vLLM", s.flags.Backend)
	if len(s.flags.Gateway) > 0 && len(s.flags.Backend) == 0 {
		line("vLLM", "not named", "--backend, as the gateway has it, shows vLLM's own figures too")
	}
	if s.gpus != nil {
		line("GPUs", browser(s.ports.gpu), "this machine's, on /metrics")
	}
	list("GPUs", s.flags.GPUExporter)
	b.WriteString("\nCtrl-C ends it.\n\n")
	return b.String()
}

// about is what the page shows of the stack.
func (s *stack) about() page.About {
	a := page.About{Version: daemon.Version(), Simulated: s.simulator != nil, Prometheus: port(s.ports.prometheus)}
	switch {
	case s.demo != nil:
		a.Notice = "Simulated: the vLLM server, its two GPUs and the load are made up. Your own requests count too, and while you send some the made-up load stays away."
	case s.simulator != nil:
		a.Notice = "Simulated: the vLLM server and its two GPUs are made up."
	}
	return a
}

// browser is a listener's address as people type it.
func browser(l net.Listener) string {
	u := local(l)
	if u.Hostname() == "127.0.0.1" {
		u.Host = net.JoinHostPort("localhost", u.Port())
	}
	return u.String()
}

func port(l net.Listener) string { return local(l).Port() }
