package config

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/vllm-gateway/vllm-gateway/internal/secret"
)

func writeKey(w io.Writer, i int) {
	fmt.Fprintf(w, "  - name: caller-%d\n    hash: %v\n    models: [Qwen/Qwen3-32B]\n    limits: {requests_per_minute: 60}\n", i, secret.HashOf(fmt.Sprint(i)))
}

const hash = "sha256:2bd806c97f0e00af1a1fc3328fa763a9269723c8db8fac4f93af71db186d6e90"

// mistakes are what people write, and every word of what they are told.
var mistakes = []struct{ name, file, want string }{
	{"a mistyped key", "lisen: :9000", `f:1: there is no key "lisen"; did you mean listen?`},
	{"a flag's spelling", "admission:\n  max-in-flight: 3", `f:2: admission: there is no key "max-in-flight"; did you mean max_in_flight?`},
	{"half a key", "limits:\n  requests: 3", `f:2: limits: there is no key "requests"; did you mean requests_per_minute?`},
	{"a key in the wrong place", "listen: \":1\"\nmax_in_flight: 3", `f:2: there is no key "max_in_flight" here; it belongs in admission`},
	{"a key too deep", "routing:\n  policy: prefix\n  backends: []", `f:3: routing: there is no key "backends" here; it belongs at the top, without indentation`},
	{"a key of another program", "tls:\n  cert: a\n  key: b\n  ciphers: x", `f:4: tls: there is no key "ciphers"; there are cert, key`},
	{"a key twice", "listen: \":1\"\nmetrics_listen: \":2\"\nlisten: \":3\"", `f:3: listen: stands here for the second time, the first is on line 1; leave one out`},
	{"a model twice", "models:\n  a: {aliases: [x]}\n  a: {aliases: [y]}", `f:3: models.a: stands here for the second time, the first is on line 2; put both together`},
	{"a word for a number", "limits:\n  requests_per_minute: many", `f:2: limits.requests_per_minute: "many" is not a whole number; write one such as 600`},
	{"a number in quotes", "limits: {tokens_per_day: \"500\"}", `f:1: limits.tokens_per_day: "500" is in quotes, which makes a text of it; write 500`},
	{"octal", "limits: {concurrency: 010}", `f:1: limits.concurrency: "010" begins with 0, which some readers of YAML take for octal; write 10`},
	{"octal, as it is new", "limits: {concurrency: 0o10}", `f:1: limits.concurrency: "0o10" is not a whole number; write one such as 20`},
	{"digits in groups", "limits: {tokens_per_day: 1_000_000}", `f:1: limits.tokens_per_day: "1_000_000" is not a whole number; leave out what parts the digits, such as in 5000000`},
	{"an exponent", "limits: {tokens_per_day: 1e6}", `f:1: limits.tokens_per_day: "1e6" is not a whole number; write one such as 5000000`},
	{"a part of a number", "backends: [{url: http://a, weight: .5}]", `f:1: backends[0].weight: ".5" is not a whole number; write one such as 2`},
	{"a negative number", "limits: {concurrency: -1}", `f:1: limits.concurrency: "-1" is negative; write a whole number from 0 on, such as 20`},
	{"too large a number", "limits: {tokens_per_day: 99999999999999999999}", `f:1: limits.tokens_per_day: "99999999999999999999" is too large; at most 1000000000000000`},
	{"null", "listen: null", `f:1: listen: null is no value; leave the key out`},
	{"a tilde", "routing: ~", `f:1: routing: ~ is no value; leave the key out`},
	{"nothing", "listen:\nmetrics_listen: \":1\"", `f:1: listen: has no value; give it one, or leave the key out`},
	{"an empty text", "listen: \"\"", `f:1: listen: is empty; give it a value, or leave the key out`},
	{"an empty list", "keys: []", `f:1: keys: is empty; put something in it, or leave the key out`},
	{"an empty section", "tls: {}", `f:1: tls: is empty; put something in it, or leave the key out`},
	{"a time without a unit", "timeouts:\n  drain: 30", `f:2: timeouts.drain: "30" has no unit; write a time such as 30s`},
	{"a day", "timeouts:\n  first_byte: 2d", `f:2: timeouts.first_byte: "2d" is not a time: there are no days; write 48h`},
	{"a clock", "admission: {max_wait: 1:30}", `f:1: admission.max_wait: "1:30" is not a time; write one such as 10m or 1h30m`},
	{"a negative time", "admission: {max_wait: -5s}", `f:1: admission.max_wait: "-5s" is negative; write a time such as 10m`},
	{"a size of thousands", "admission: {max_body: 32MB}", `f:1: admission.max_body: "32MB" is not a size; write a whole number of bytes, or one with KiB, MiB or GiB, such as 32MiB`},
	{"none of the words", "shared_limits: {redis: redis://r, fail: soft}", `f:1: shared_limits.fail: "soft" is none of open, closed`},
	{"what must be said", "shared_limits:\n  redis: redis://r", `f:2: shared_limits: there is no fail; say what happens while Redis is away: open lets requests pass uncounted, closed refuses them`},
	{"a password for all to see", "shared_limits: {redis: redis://r, fail: open, password: hunter2}", `f:1: shared_limits: there is no key "password"; did you mean password_file?`},
	{"half of TLS", "tls:\n  cert: a.pem", `f:2: tls: there is no key; it goes with cert`},
	{"a backend without a URL", "backends:\n  - weight: 2", `f:2: backends[0]: there is no url; name the server, as http://host:port`},
	{"backends that are no list", "backends:\n  url: http://a:1", `f:2: backends: must be a list; begin each item with a hyphen: - url: http://10.0.0.1:8000`},
	{"a list of URLs", "backends:\n  - http://a:1", `f:2: backends[0]: must have keys of its own, such as url: http://10.0.0.1:8000`},
	{"one alias", "models:\n  a:\n    aliases: b", `f:3: models.a.aliases: must be a list, even of one: [name]`},
	{"an alias twice", "models:\n  a: {aliases: [b, c, b]}", `f:2: models.a.aliases[2]: is in this list already; leave one out`},
	{"an alias of two", "models:\n  a:\n    aliases: [x]\n  b:\n    aliases: [x]", `f:5: models.b.aliases[0]: "x" is an alias of "a" too, on line 3; leave one out`},
	{"models that are a list", "models:\n  - a", `f:2: models: must have keys of its own, such as Qwen/Qwen3-8B: {aliases: …}`},
	{"a list for one value", "listen: [a, b]", `f:1: listen: must be a single value, not a list and not a mapping`},
	{"a text on two lines", "listen: |\n  a\n  b", `f:1: listen: has a line break or a control character in it; write it on one line`},
	{"a key without a hash", "keys:\n  - name: alice", `f:2: keys[0]: there is no hash; make one with vllm-gateway hash-key`},
	{"a key for a hash", "keys:\n  - name: alice\n    hash: vg-SECRET", `f:3: keys[0].hash: this is no hash (sha256: and 64 hexadecimal digits); keys do not stand in the file, only their hashes: vllm-gateway hash-key makes one of a key that it reads`},
	{"a hash and a key", "keys:\n  - name: a\n    hash:\n      - " + hash + "\n      - SECRET", `f:5: keys[0].hash[1]: this is no hash (sha256: and 64 hexadecimal digits); keys do not stand in the file, only their hashes: vllm-gateway hash-key makes one of a key that it reads`},
	{"a key by that name", "keys:\n  - {name: a, hash: " + hash + ", key: SECRET}", `f:2: keys[0]: there is no key "key"; keys do not stand in the file, only their hashes: give hash, which vllm-gateway hash-key makes of a key that it reads`},
	{"keys alone", "keys:\n  - sk-SECRET", `f:2: keys[0]: must have keys of its own, such as {name: alice, hash: sha256:…}`},
	{"a key as a name", "keys:\n  - sk-SECRET1: alice\n    name: a\n    hash: " + hash, `f:2: keys[0]: there is no key what stands here; there are name, hash, models, priority, limits`},
	{"keys by name", "keys:\n  alice: SECRET", `f:2: keys: must be a list; begin each item with a hyphen: - {name: alice, hash: sha256:…}`},
	{"a priority that is none", "keys:\n  - {name: a, hash: " + hash + ", priority: SECRET}", `f:2: keys[0].priority: what stands here is none of high, normal, low`},
	{"an anchor", "listen: &a x", `f:1: listen: anchors and aliases (& and *) are not taken; write the value out, or put it in quotes if it is meant to begin so`},
	{"an alias of YAML", "listen: *a", `f:1: anchors and aliases (& and *) are not taken; write the value out, or put it in quotes if it is meant to begin so`},
	{"a tag", "listen: !env PORT", `f:1: listen: tags (!) are not taken; leave it out, or put the value in quotes if it is meant to begin so`},
	{"a merge", "limits:\n  <<: {concurrency: 1}", `f:2: limits: anchors and aliases (& and *) are not taken; write the value out, or put it in quotes if it is meant to begin so`},
	{"a tab", "limits:\n\tconcurrency: 1", `f:2: the line is indented by a tab; YAML takes spaces only`},
	{"a colon too many", "listen: a: b", `f:1: this is not YAML: mapping values are not allowed in this context; is there a ": " too many, or is the line indented too far? Put a value with ": " in it in quotes`},
	{"a bracket not closed", "keys: [\nlisten: \":1\"\n", `f:3: this is not YAML: did not find expected ',' or ']'; here or further up a bracket is not closed, or a comma is missing`},
	{"a bracket not closed further down", "listen: \":1\"\nkeys:\n  - {name: bob\n\nlimits:\n  concurrency: 4\n", `f:3: this is not YAML: did not find expected ',' or '}'; here or further up a bracket is not closed, or a comma is missing`},
	{"a quote not closed", "listen: \":1\"\nmetrics_listen: \":2\nlimits:\n  concurrency: 4\n", `f:2: this is not YAML: found unexpected end of stream; here or further up a quote is not closed`},
	{"an indent too small", "keys:\n  - {name: alice, hash: x}\n  - name: bob\n   hash: x\n  - name: carol\n", `f:4: this is not YAML: did not find expected '-' indicator; indent the line like its neighbours`},
	{"a key among items", "keys:\n  - name: bob\n    hash: x\n  foo: y\nlisten: a\n", `f:4: this is not YAML: did not find expected '-' indicator; indent the line like its neighbours`},
	{"a colon missing", "listen: \":1\"\nlimits\nrouting: {policy: prefix}\n", `f:2: this is not YAML: could not find expected ':'; is a colon missing, or the space behind it?`},
	{"a sign of YAML", "routing:\n  session_header: @x", `f:2: this is not YAML: found character that cannot start any token; put a value that begins with @, ` + "`" + ` or % in quotes`},
	{"a control character", "listen: \":1\"\n# \x00", `f:2: there is a control character (U+0000) in the line; take it out`},
	{"two documents", "listen: \":1\"\n---\nlisten: \":2\"", `f:2: a second document begins here (---); a file has one`},
	{"an empty file", "", `f:1: the file is empty; docs/gateway.yaml is an example`},
	{"comments alone", "# nothing\n\n", `f:1: the file is empty; docs/gateway.yaml is an example`},
	{"another kind of file", "hello", `f:1: the file must begin with a key, such as listen: ":9000"`},
	{"another encoding", "listen: \":1\"\n# caf\xe9", `f:2: the text is not UTF-8; save it so`},
	{"all at once, by line", "keys:\n  - {name: a}\nlimits: {concurrency: x}\nlisten: [1]", "f:2: keys[0]: there is no hash; make one with vllm-gateway hash-key\nf:3: limits.concurrency: \"x\" is not a whole number; write one such as 20\nf:4: listen: must be a single value, not a list and not a mapping"},
}

func TestMistakes(t *testing.T) {
	for _, m := range mistakes {
		_, err := Parse("f", []byte(m.file))
		if err == nil {
			t.Errorf("%s: was taken", m.name)
			continue
		}
		if err.Error() != m.want {
			t.Errorf("%s:\n got %v\nwant %s", m.name, err, m.want)
		}
		if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: the error has a key in it: %v", m.name, err)
		}
	}
}
