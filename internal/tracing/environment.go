package tracing

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
)

// settings are what has to be known of the environment here; the rest is read by the
// SDK itself, from the same variables.
type settings struct {
	on       bool
	endpoint string   // of spans, without what may be secret; "": the default
	secrets  []string // what no log may hold
}

// read reads the environment. The error names all that is wrong in it.
func read() (settings, error) {
	var s settings
	if strings.EqualFold(get("OTEL_SDK_DISABLED"), "true") {
		return s, nil
	}
	_, own := either("ENDPOINT")
	switch exporter := get("OTEL_TRACES_EXPORTER"); exporter {
	case "none":
		return s, nil
	case "":
		if own == "" {
			return s, nil
		}
	case "otlp":
	default:
		return s, fmt.Errorf("OTEL_TRACES_EXPORTER=%s: spans are sent by OTLP only; write otlp, or none", exporter)
	}
	s.on = true
	var errs []error
	for _, check := range []func() error{
		s.checkEndpoint, s.checkHeaders, checkProtocol, checkCompression, checkTimeout, checkCertificates, s.checkInsecure, checkSampler, checkBatches, checkLimits, checkPropagators, checkResource,
	} {
		errs = append(errs, check())
	}
	return s, errors.Join(errs...)
}

// get reads a variable; one that is empty is like one that is not set, by the
// specification.
func get(name string) string { return strings.TrimSpace(os.Getenv(name)) }

// either reads a setting of the exporter, which there may be for spans alone, and
// says which variable it was.
func either(setting string) (name, value string) {
	for _, name = range []string{"OTEL_EXPORTER_OTLP_TRACES_" + setting, "OTEL_EXPORTER_OTLP_" + setting} {
		if value = get(name); value != "" {
			return name, value
		}
	}
	return "", ""
}

func (s *settings) checkEndpoint() error {
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		value := get(name)
		if value == "" {
			continue
		}
		u, err := url.Parse(value)
		switch {
		case err != nil, u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "":
			return fmt.Errorf("%s: not a URL such as http://host:4318", name) // what it says instead may be anything
		case u.User != nil:
			return fmt.Errorf("%s: a user name or password is not sent from here; write it as a header into OTEL_EXPORTER_OTLP_HEADERS", name)
		case u.RawQuery != "" || u.Fragment != "":
			return fmt.Errorf("%s: what follows the path would not be sent; leave it out", name)
		}
		if port, err := strconv.Atoi(cmp.Or(u.Port(), "80")); err != nil || port < 1 || port > 65535 {
			return fmt.Errorf("%s: port %s; write a number from 1 to 65535", name, u.Port())
		}
		s.endpoint = u.Scheme + "://" + u.Host + u.Path
	}
	return nil
}

// checkInsecure: with OTLP over HTTP the URL says whether there is TLS. The exporter
// lets this variable overrule it, and would send headers in the clear to an https
// endpoint.
func (s *settings) checkInsecure() error {
	name, value := either("INSECURE")
	if value != "" && s.endpoint != "" && strings.EqualFold(value, "true") != strings.HasPrefix(s.endpoint, "http:") {
		return fmt.Errorf("%s=%s: the endpoint's URL says otherwise, %s; leave the variable out", name, value, s.endpoint)
	}
	return nil
}

func checkProtocol() error {
	switch name, value := either("PROTOCOL"); value {
	case "", "http/protobuf", "http/json":
		return nil
	case "grpc":
		return fmt.Errorf("%s=grpc: OTLP over gRPC is not spoken here; write http/protobuf, and an endpoint that takes it (mostly port 4318)", name)
	default:
		return fmt.Errorf("%s=%s: write http/protobuf or http/json", name, value)
	}
}

func checkCompression() error {
	switch name, value := either("COMPRESSION"); value {
	case "", "none", "gzip":
		return nil
	default:
		return fmt.Errorf("%s=%s: write gzip or none", name, value)
	}
}

func checkTimeout() error {
	name, value := either("TIMEOUT")
	return atLeast(1, name, value, " milliseconds")
}

// checkHeaders says what is wrong without saying what is there: headers hold keys.
func (s *settings) checkHeaders() error {
	for _, variable := range []string{"OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"} {
		for i, pair := range strings.Split(get(variable), ",") {
			if strings.TrimSpace(pair) == "" && get(variable) == "" {
				continue
			}
			name, value, found := strings.Cut(pair, "=")
			plain, err := url.PathUnescape(value)
			if !found || !isToken(strings.TrimSpace(name)) || err != nil || strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
				return fmt.Errorf("%s: header %d is not of the form name=value; write name=value,name=value, and in values %%2C for a comma", variable, i+1)
			}
			s.secrets = append(s.secrets, strings.TrimSpace(plain))
			if _, key, ok := strings.Cut(strings.TrimSpace(plain), " "); ok { // Bearer key
				s.secrets = append(s.secrets, key)
			}
		}
	}
	return nil
}

// isToken: of RFC 9110, 5.6.2.
func isToken(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") == ""
}

func checkCertificates() error {
	for _, kind := range []string{"", "TRACES_"} {
		name := "OTEL_EXPORTER_OTLP_" + kind + "CERTIFICATE"
		if file := get(name); file != "" {
			pem, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if !x509.NewCertPool().AppendCertsFromPEM(pem) {
				return fmt.Errorf("%s: %s holds no certificate; it must be PEM", name, file)
			}
		}
		certName, keyName := "OTEL_EXPORTER_OTLP_"+kind+"CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_"+kind+"CLIENT_KEY"
		cert, key := get(certName), get(keyName)
		if cert == "" && key == "" {
			continue
		}
		if cert == "" || key == "" {
			return fmt.Errorf("%s and %s go together: set both or none", certName, keyName)
		}
		if _, err := tls.LoadX509KeyPair(cert, key); err != nil {
			return fmt.Errorf("%s, %s: %w", certName, keyName, err)
		}
	}
	return nil
}

var samplers = []string{"always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"}

func checkSampler() error {
	name, arg := strings.ToLower(get("OTEL_TRACES_SAMPLER")), get("OTEL_TRACES_SAMPLER_ARG")
	if name != "" && !slices.Contains(samplers, name) {
		return fmt.Errorf("OTEL_TRACES_SAMPLER=%s: choose one of %s", name, strings.Join(samplers, ", "))
	}
	if !strings.HasSuffix(name, "traceidratio") || arg == "" {
		return nil
	}
	if share, err := strconv.ParseFloat(arg, 64); err != nil || !(share >= 0 && share <= 1) {
		return fmt.Errorf("OTEL_TRACES_SAMPLER_ARG=%s: the share of traces that %s keeps; write a number from 0 to 1", arg, name)
	}
	return nil
}

func checkBatches() error {
	var errs []error
	for _, name := range []string{"OTEL_BSP_SCHEDULE_DELAY", "OTEL_BSP_EXPORT_TIMEOUT", "OTEL_BSP_MAX_QUEUE_SIZE", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE"} {
		unit := " milliseconds"
		if strings.Contains(name, "SIZE") {
			unit = " spans"
		}
		errs = append(errs, atLeast(1, name, get(name), unit))
	}
	return errors.Join(errs...)
}

// checkLimits: a limit below 0 is none, to the SDK.
func checkLimits() error {
	var errs []error
	for _, name := range []string{"OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT", "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"} {
		errs = append(errs, atLeast(-1, name, get(name), ""))
	}
	return errors.Join(errs...)
}

// most keeps sizes such that queues can be made of them, and times such that they do
// not overflow.
const most = 1_000_000_000

func atLeast(least int, name, value, unit string) error {
	if value == "" {
		return nil
	}
	if strings.Contains(name, "SIZE") {
		return within(least, 1_000_000, name, value, unit)
	}
	return within(least, most, name, value, unit)
}

func within(least, most int, name, value, unit string) error {
	if n, err := strconv.Atoi(value); err != nil || n < least || n > most {
		return fmt.Errorf("%s=%s: write a whole number from %d to %d%s", name, value, least, most, unit)
	}
	return nil
}

func checkResource() error {
	value := get("OTEL_RESOURCE_ATTRIBUTES")
	for i, pair := range strings.Split(value, ",") {
		name, text, found := strings.Cut(pair, "=")
		if _, err := url.PathUnescape(text); value != "" && (!found || strings.TrimSpace(name) == "" || err != nil) {
			return fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: attribute %d, %q, is not of the form name=value; write name=value,name=value, and in values %%2C for a comma", i+1, pair)
		}
	}
	return nil
}

// checkPropagators: baggage goes on whatever stands here, like every header.
func checkPropagators() error {
	value := get("OTEL_PROPAGATORS")
	if value == "" {
		return nil
	}
	for p := range strings.SplitSeq(value, ",") {
		if p = strings.TrimSpace(p); p != "tracecontext" && p != "baggage" {
			return fmt.Errorf("OTEL_PROPAGATORS=%s: traces go on as W3C traceparent only; write tracecontext, or tracecontext,baggage", value)
		}
	}
	return nil
}
