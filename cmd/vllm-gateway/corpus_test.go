package main

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// hostile is what a client may put on the wire.
type hostile struct {
	class string
	raw   string
	// reach is how many requests must reach the backend; -1 leaves it to the strict
	// reader, which is asked in any case.
	reach int
}

const (
	inner = "POST /tokenize HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}" // what a smuggler wants to get through
	head  = "POST /v1/embeddings HTTP/1.1\r\nHost: g\r\n"
)

func chunk(s string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(s), s) }

func said(headers, body string) string { return head + headers + "\r\n" + body }

func posted(body string) string {
	return said("Content-Type: application/json\r\nContent-Length: "+strconv.Itoa(len(body))+"\r\n", body)
}

// corpus is generated from tables, in a fixed order.
func corpus() (all []hostile) {
	add := func(class string, reach int, raws ...string) {
		for _, raw := range raws {
			all = append(all, hostile{class, raw, reach})
		}
	}
	framing(add)
	chunks(add)
	heads(add)
	targets(add)
	methods(add)
	hops(add)
	connections(add)
	bodies(add)
	return all
}

type adder func(class string, reach int, raws ...string)

// framing: what a body's end is told by, told twice or told oddly.
func framing(add adder) {
	hidden := "0\r\n\r\n" + inner // an end for readers of chunks, more of the body for readers of lengths
	for _, te := range []string{"chunked", "Chunked", "CHUNKED", "  chunked", "\tchunked", "chunked  ", "\r\n chunked"} {
		name := "Transfer-Encoding:" + te + "\r\n"
		add("te, well said", 1,
			said(name, chunk("{}")+"0\r\n\r\n"),
			said(name+"Content-Length: 2\r\n", chunk("{}")+"0\r\n\r\n"),
			said("Content-Length: 2\r\n"+name, chunk("{}")+"0\r\n\r\n"),
			said(name+fmt.Sprintf("Content-Length: %d\r\n", len(hidden)), hidden),
			said(fmt.Sprintf("Content-Length: %d\r\n", len(hidden))+name, hidden),
			said("Content-Length: 0\r\n"+name, chunk("{}")+hidden),
			said(name, chunk("{}")+"0\r\n\r\n"+inner),
			said("Content-Length: 4\r\n"+name, chunk(inner)+"0\r\n\r\n"))
	}
	for _, te := range []string{
		"", " ", "xchunked", "chunkedx", "chunke", "chunked,", ",chunked", "chunked, chunked", "chunked,chunked", "identity", "identity, chunked", "chunked, identity",
		"gzip", "gzip, chunked", "chunked, gzip", "deflate, chunked", `"chunked"`, "'chunked'", "chunked;q=1", "chunked; a=b", "chun ked", "chunked\x0b", "\x0bchunked",
		"\x0cchunked", "chunked\x00", "\x00chunked", "chunked\x7f", "chunked\xa0", "\xa0chunked", "chunked\xff", "ｃhunked", "[chunked]", "{chunked}",
		"chunked\r", "chunked\rx", "x\r\n chunked", "chunked\r\n x", "=chunked", ": chunked", "chunked: chunked", "trailers", "null", "none", "%63hunked",
	} {
		name := "Transfer-Encoding: " + te + "\r\n"
		add("te, badly said", 0,
			said(name, chunk("{}")+hidden),
			said("Content-Length: 2\r\n"+name, "{}"+inner),
			said(name+fmt.Sprintf("Content-Length: %d\r\n", len(hidden)), hidden))
	}
	for _, two := range [][2]string{{"chunked", "chunked"}, {"chunked", "identity"}, {"identity", "chunked"}, {"chunked", "x"}, {"x", "chunked"}, {"", "chunked"}, {"gzip", "chunked"}} {
		name := "Transfer-Encoding: " + two[0] + "\r\nTransfer-encoding: " + two[1] + "\r\n"
		add("te twice", 0, said(name, chunk("{}")+hidden), said(name+"Content-Length: 2\r\n", "{}"+inner))
	}
	for _, name := range []string{
		"Transfer-Encoding ", "Transfer-Encoding\t", "Transfer-Encoding\x0b", "Transfer-Encoding\x00", "Transfer\x00-Encoding", "Transfer Encoding", "Transfer-Encoding\r",
		"\x00Transfer-Encoding", "Transfer-Encodinģ", "Transfer-Encoding\xa0", "\xef\xbb\xbfTransfer-Encoding", "Transfer\n-Encoding", "Transfer-Encoding\r\n ", "(Transfer-Encoding)", "Transfer-Encoding=x", "",
	} {
		add("te's name", 0, said(name+": chunked\r\n", hidden), said("Content-Length: 2\r\n"+name+": chunked\r\n", "{}"+inner))
	}
	for _, name := range []string{"Transfer_Encoding", "TransferEncoding", "X-Transfer-Encoding", "Content-Encoding", "Transfer-Coding", "Transfer--Encoding", "Transfer-Encoding-", "TE", "~Transfer-Encoding"} {
		add("te's name", 1, said("Content-Length: 2\r\n"+name+": chunked\r\n", "{}"), said(name+": chunked\r\nContent-Length: 2\r\n", "{}"))
		add("te's name", 2, said(name+": chunked\r\nContent-Length: 2\r\n", "{}"+inner), said(name+": chunked\r\n", inner)) // honest: these say nothing of framing
	}
	for _, cl := range []string{
		"", " ", "+2", "-2", "2,2", "2, 2", "2, 3", "3, 2", "2;", "2.0", "2e0", "0x2", "0b10", "2 2", "2\x00", "\x002", "2\x0b", "2\r", "two", "²", "２", "\"2\"", "'2'", "2_", "1_0", "0_2",
		"9223372036854775808", "18446744073709551616", "18446744073709551618", "99999999999999999999999999", "-0", "+0", "--2", "2-", "(2)", "2#", "NaN", "inf", "\xff", "2\xa0", "%32",
	} {
		add("cl, badly said", 0, said("Content-Length: "+cl+"\r\n", "{}"), said("Content-Length: "+cl+"\r\n", "{}"+inner), said("Content-Length: 2\r\nContent-Length: "+cl+"\r\n", "{}"))
	}
	for _, cl := range []string{"2", "02", "0000000000002", "2 ", "\t2", "\r\n 2"} {
		add("cl, well said", 1, said("Content-Length:"+cl+"\r\n", "{}"))
		add("cl, well said", 2, said("Content-Length:"+cl+"\r\n", "{}"+inner))
	}
	for _, two := range [][2]string{{"2", "3"}, {"3", "2"}, {"2", "0"}, {"0", "2"}, {"2", "02"}, {"2", "2,2"}, {"2", "200"}} {
		add("cl twice", 0, said("Content-Length: "+two[0]+"\r\nContent-Length: "+two[1]+"\r\n", "{}"+inner), said("Content-Length: "+two[0]+"\r\nX: y\r\ncontent-length: "+two[1]+"\r\n", "{}"+inner))
	}
	add("cl twice", 1, said("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"))
	add("cl twice", 2, said("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"+inner))
	for _, name := range []string{"Content-Length ", "Content-Length\t", "Content-Length\x00", "Content Length", "\x0bContent-Length", "Content-Length\r"} {
		add("cl's name", 0, said(name+": 2\r\n", "{}"+inner), said("Content-Length: 0\r\n"+name+": 2\r\n", "{}"+inner))
	}
	for _, name := range []string{"Content_Length", "Content-Length-", "X-Content-Length", "ContentLength"} {
		add("cl's name", 2, said(name+": 2\r\n", inner)) // says nothing: the body is empty
		add("cl's name", 1, said(name+": 9\r\nContent-Length: 2\r\n", "{}"), said("Content-Length: 2\r\n"+name+": 9\r\n", "{}"))
	}
	for _, n := range []int{1, 3, 100, 1 << 20, 32 << 20} {
		add("cl and the body differ", 0, said(fmt.Sprintf("Content-Length: %d\r\n", n+2), "{}"))
	}
	add("cl and the body differ", 0, said("Content-Length: 33554433\r\n", "{}"), said("Content-Length: 9223372036854775807\r\n", "{}"))
	add("cl and the body differ", 1, said("Content-Length: 2\r\n", "{}}"), said("Content-Length: 2\r\n", "{}\r\n{}"), said("Content-Length: 2\r\n", "{}\x00"), said("Content-Length: 2\r\n", "{} GET / HTTP/1.1\r\n\r\n"), said("", "{}"))
	for _, method := range []string{"GET /version", "GET /v1/models", "OPTIONS /v1/embeddings"} {
		add("bodies where none belongs", 1, method+" HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}", method+" HTTP/1.1\r\nHost: g\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"+inner,
			method+" HTTP/1.1\r\nHost: g\r\nContent-Length: "+strconv.Itoa(len(inner))+"\r\n\r\n"+inner)
	}
	for _, path := range []string{"GET /health", "GET /metrics", "POST /nowhere", "DELETE /version", "POST /v1/responses/../x", "HEAD /health"} {
		line := path + " HTTP/1.1\r\nHost: g\r\n"
		add("doubts where nobody reads", 0, line+"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"+inner, line+"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n"+hidden,
			line+"Transfer-Encoding: chunked\r\n\r\nzz\r\n"+hidden, line+"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}"+inner)
		old := path + " HTTP/1.0\r\nConnection: keep-alive\r\n"
		add("doubts where nobody reads", 0, old+"Transfer-Encoding: chunked\r\n\r\n"+inner, old+"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n"+inner)
	}
}

// chunks: bodies in chunks that are none.
func chunks(add adder) {
	te := func(body string) string { return said("Transfer-Encoding: chunked\r\n", body) }
	for _, size := range []string{
		"", " ", "zz", "g", "-2", "+2", "0x2", "2h", " 2", "\t2", "2 2", "2,2", "2\x00", "\x002", "\xff", "２", "2\r", "2\rx", "\r2", "2;a\rb", "10000000000000002", "ffffffffffffffff", "fffffffffffffffff",
		"00000000000000000002", "2\x0b", "\"2\"", "2.0", "1e0", "2 ;a", "2\t;a", "%32", "2_", "2h;a=b", "#2", ";2", "; 2",
	} {
		add("chunk sizes", 0, te(size+"\r\n{}\r\n0\r\n\r\n"+inner))
	}
	for _, size := range []string{"2", "02", "000002", "2;", "2;a", "2;a=b", `2;a="b"`, `2;a="b;c"`, "2;a;b;c", "2; a = b", "2;\x00", "2;\xff", "2;" + strings.Repeat("x", 3000), "2 ", "2\t", "2;a "} {
		add("chunk extensions", 1, te(size+"\r\n{}\r\n0\r\n\r\n"+inner))
	}
	add("chunk extensions", 0, te("2;a\n{}\r\n0\r\n\r\n"+inner), te("2;\r\r\n{}\r\n0\r\n\r\n"+inner), te("2;"+strings.Repeat("x", 5000)+"\r\n{}\r\n0\r\n\r\n"), te(strings.Repeat("1;"+strings.Repeat("x", 2000)+"\r\nx\r\n", 40)+"0\r\n\r\n"))
	for _, body := range []string{
		"2\n{}\r\n0\r\n\r\n", "2\r\n{}\n0\r\n\r\n", "2\r\n{}\r0\r\n\r\n", "2\r\n{}0\r\n\r\n", "2\r\n{}\r\n0\n\r\n", "2\r\n{}\r\r\n0\r\n\r\n", "2\r\n{}\n\n0\r\n\r\n", "2\r{}\r\n0\r\n\r\n", "2\r\n{}xx0\r\n\r\n",
		"3\r\n{}\r\n0\r\n\r\n", "1\r\n{}\r\n0\r\n\r\n", "2\r\n{}\r\n0\r\nno trailer\r\n\r\n", "2\r\n{}\r\n0\r\n : x\r\n\r\n", "2\r\n{}\r\n0\r\nA\x00: x\r\n\r\n", "2\r\n{}\r\n-0\r\n\r\n", "2\r\n{}\r\n0x0\r\n\r\n",
	} {
		add("chunk ends", 0, te(body+inner))
	}
	for _, trailer := range []string{"A: b\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n", "X-Data-Parallel-Rank: 1\r\n", "Host: other\r\n", "X_Y: z\r\n", "A: b\r\nA: c\r\n", "Trailer: A\r\n", "Authorization: x\r\n"} {
		add("trailers", 1, te("2\r\n{}\r\n0\r\n"+trailer+"\r\n"+inner), said("Transfer-Encoding: chunked\r\nTrailer: A, B\r\n", "2\r\n{}\r\n0\r\n"+trailer+"\r\n"+inner))
	}
	whole := te("2\r\n{}\r\n0\r\n\r\n")
	for n := len(head); n < len(whole); n++ {
		add("cut bodies", 0, whole[:n])
	}
	for _, cut := range []string{"2\r\n{}\r\n", "2\r\n{", "2\r\n", "2\r", "2", "", "0\r\n", "0\r\n\r", "2;a", "2\r\n{}\r\n0\r\nA: b\r\n", "2\r\n{}\r\n0\r\nA: b"} {
		add("cut bodies", 0, te(cut))
	}
	for n := range len(posted("{}")) {
		add("cut heads", 0, posted("{}")[:n])
	}
}

// heads: lines that are no headers, and headers that are too much.
func heads(add adder) {
	line := "POST /v1/embeddings HTTP/1.1"
	body := "Content-Length: 2\r\n\r\n{}"
	for _, l := range []string{
		"POST  /v1/embeddings HTTP/1.1", "POST /v1/embeddings  HTTP/1.1", " POST /v1/embeddings HTTP/1.1", "POST /v1/embeddings HTTP/1.1 ", "POST\t/v1/embeddings HTTP/1.1", "POST /v1/embeddings\tHTTP/1.1",
		"POST /v1/embeddings", "POST", "", " ", "POST /v1/embeddings HTTP/1.1\r", "POST /v1/embeddings\r HTTP/1.1", "POST /v1/embeddings HTTP/1.1 x", "POST /v1/embeddings x HTTP/1.1", "POST /v1/embeddings\x0bHTTP/1.1",
		"POST /v1/embeddings HTTP/1", "POST /v1/embeddings HTTP/1.", "POST /v1/embeddings HTTP/.1", "POST /v1/embeddings HTTP/01.1", "POST /v1/embeddings HTTP/1.01", "POST /v1/embeddings HTTP/1.1.1", "POST /v1/embeddings HTTP/11",
		"POST /v1/embeddings http/1.1", "POST /v1/embeddings HTTPS/1.1", "POST /v1/embeddings HTTP/0.9", "POST /v1/embeddings HTTP/2", "POST /v1/embeddings HTTP/2.0", "POST /v1/embeddings HTTP/3.0", "POST /v1/embeddings HTTP/9.9",
		"POST /v1/embeddings HTTP/-1.1", "POST /v1/embeddings HTTP/1.x", "POST /v1/embeddings HTTP/1.1\x00", "POST /v1/embeddings HTTP1.1", "POST /v1/embeddings HTTP /1.1", "POST /v1/embeddings ICY/1.1", "HTTP/1.1 200 OK", "POST /v1/embeddings HTTP/１.1",
		"\x00POST /v1/embeddings HTTP/1.1", "\xef\xbb\xbfPOST /v1/embeddings HTTP/1.1", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "POST\x00 /v1/embeddings HTTP/1.1", "POST /v1/embeddings\x00 HTTP/1.1",
	} {
		add("request lines", 0, l+"\r\nHost: g\r\n"+body)
		add("request lines", -1, l+"\nHost: g\n"+body)
	}
	add("request lines", 0, "\r\n"+posted("{}"), "\n"+posted("{}"), "\r\n\r\n"+posted("{}"))
	add("request lines", 1, line+"\nHost: g\nContent-Length: 2\n\n{}", line+"\r\nHost: g\nContent-Length: 2\r\n\n{}", line+"\nHost: g\r\nContent-Length: 2\n\r\n{}", "POST /v1/embeddings HTTP/1.2\r\nHost: g\r\n"+body, "POST /v1/embeddings HTTP/1.9\r\nHost: g\r\n"+body)
	add("http/0.9", 0, "GET /version\r\n", "GET /version\r\n\r\n", "GET /v1/models\n", "GET /version \r\n\r\n", "POST /v1/embeddings\r\n\r\n{}")
	for _, h := range []string{
		" A: b", "\tA: b", "A : b", "A\t: b", "A b: c", "A", "A b", ": b", " : b", "A\x00: b", "A\x0b: b", "A\x7f: b", "A\xff: b", "Ä: b", "(A): b", "A[]: b", "A{}: b", "A=: b", "A@: b", "A,: b", "A/: b", `A": b`, `A\: b`, "A;: b", "A?: b", "A<>: b",
		"A: b\x00", "A: \x00", "A: b\x01c", "A: b\x08", "A: b\x0bc", "A: b\x0c", "A: b\x1bc", "A: b\x7f", "A: b\rc: d", "A: b\r", "A: \rb", "A\r: b", "A:\rb", "A\r\nb",
	} {
		add("header lines", 0, line+"\r\n"+h+"\r\nHost: g\r\n"+body, line+"\r\nHost: g\r\nX: y\r\n"+strings.TrimLeft(h, " \t")+strings.Repeat("\x00", len(h)-len(strings.TrimLeft(h, " \t")))+"\r\n"+body)
	}
	for _, h := range []string{
		"A:", "A: ", "A:b", "A:  b  ", "A:\tb", "A: b\tc", "A: b\r\n c", "A: b\r\n\tc", "A:\r\n b", "A: b\r\n  \r\n c", "A: \xff\xfe", "A: ü", "A: b: c", "A: =?utf-8?q?x?=", "A: ${jndi:ldap://x}", "A: () { :; }", "A: <script>", "A: b\nB: c", "A: \"", "A: '", "A: \\",
		"!#$%&'*+-.^`|~: b", "a: b", "9: b", "A.b: c", "A: b\r\na: c\r\nA: d", "A: " + strings.Repeat("b", 8000), "Cookie: " + strings.Repeat("a=b; ", 500), "Range: bytes=0-0,1-1", "X-Forwarded-For: 127.0.0.1", "X-Original-URL: /sleep", "X-Rewrite-URL: /sleep", "X-HTTP-Method-Override: DELETE", "Forwarded: for=x;host=y",
	} {
		add("header lines", 1, line+"\r\nHost: g\r\n"+h+"\r\n"+body)
	}
	for _, name := range []string{"X_Data_Parallel_Rank", "x_data_parallel_rank", "X-Data_Parallel-Rank", "X_Y", "_", "__", "_A", "A_", "Content_Type", "Host_", "X_Request_Id", "Authorization_", "A_b-C", "X_Forwarded_For", "REMOTE_USER", "HTTP_PROXY", "Proxy_"} {
		add("names with underscores", 1, line+"\r\nHost: g\r\n"+name+": 3\r\n"+body, line+"\r\n"+strings.ToUpper(name)+": 3\r\nHost: g\r\n"+strings.ToLower(name)+": 4\r\n"+body)
	}
	for _, h := range []string{"X-Data-Parallel-Rank: 3", "x-data-parallel-rank: 3", "X-DATA-PARALLEL-RANK:3", "X-data-parallel-rank: 0\r\nX-data-parallel-rank: 1", "X-Data-Parallel-Rank: -1", "X-Data-Parallel-Rank:\r\n 3", "X-Data-Parallel-Rank: " + strings.Repeat("9", 5000), "Connection: X-Data-Parallel-Rank\r\nX-Data-Parallel-Rank: 1", "X-Data-Parallel-Rank: x\r\nX_Data_Parallel_Rank: y"} {
		add("x-data-parallel-rank", 1, line+"\r\nHost: g\r\n"+h+"\r\n"+body)
	}
	for _, h := range []string{"X-Data-Parallel-Rank : 3", "X-Data-Parallel-Rank\t: 3", "X-Data-Parallel-Rank\x00: 3", " X-Data-Parallel-Rank: 3"} {
		add("x-data-parallel-rank", 0, line+"\r\n"+h+"\r\nHost: g\r\n"+body)
	}
	many := func(n int) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, "H%d: v\r\n", i)
		}
		return b.String()
	}
	add("too much", 1, line+"\r\nHost: g\r\n"+many(1000)+body, line+"\r\nHost: g\r\n"+strings.Repeat("A: b\r\n", 5000)+body, line+"\r\nHost: g\r\nA: "+strings.Repeat("b", 60_000)+"\r\n"+body, "POST /v1/embeddings?a="+strings.Repeat("b", 60_000)+" HTTP/1.1\r\nHost: g\r\n"+body)
	add("too much", 0, line+"\r\nHost: g\r\n"+many(20_000)+body, line+"\r\nHost: g\r\nA: "+strings.Repeat("b", 80_000)+"\r\n"+body, line+"\r\nHost: g\r\n"+strings.Repeat("A", 80_000)+": b\r\n"+body, "POST /"+strings.Repeat("b", 80_000)+" HTTP/1.1\r\nHost: g\r\n"+body,
		"POST /v1/embeddings?a="+strings.Repeat("b", 80_000)+" HTTP/1.1\r\nHost: g\r\n"+body, strings.Repeat("A", 80_000)+" / HTTP/1.1\r\nHost: g\r\n"+body, line+"\r\nHost: g\r\n"+strings.Repeat(" "+strings.Repeat("b", 1000)+"\r\n", 100)+body, "POST /"+strings.Repeat("b", 10_000)+" HTTP/1.1\r\nHost: g\r\n"+body, strings.Repeat("A", 5000)+" /version HTTP/1.1\r\nHost: g\r\n"+body,
		strings.Repeat("\r\n", 500)+posted("{}"), strings.Repeat("\x00", 500), strings.Repeat("A", 5000)+"\r\n\r\n")
	for _, h := range []string{"", "Host: g\r\nHost: g\r\n", "Host: g\r\nHost: other\r\n", "Host: g\r\nhost: g\r\n", "Host:g\r\nHOST: \r\n", "Host : g\r\n", " Host: g\r\n", "Host\r\n", "Host: g\x00\r\n", "Host: g\r\n\x00Host: x\r\n"} {
		add("hosts", 0, line+"\r\n"+h+body)
	}
	for _, h := range []string{"", "127.0.0.1", "localhost:8000", "g:99999", "other.example", "-", "g.", "169.254.169.254", "xn--bcher-kva.example", "G", "::1"} {
		add("hosts", 1, line+"\r\nHost: "+h+"\r\n"+body)
	}
	for _, h := range []string{"g/sleep", "g?x", "g#x", "u:p@g", "g g", "g,h", "[::1]", "[::1", "g\tx", "http://g", "%67", "g:80:80", "ü", "\xff", "g;x", "{g}", "g\"", "\\g"} {
		add("hosts", -1, line+"\r\nHost: "+h+"\r\n"+body) // relayed or refused: the backend gets its own
	}
	for _, h := range []string{"Expect: 100-continue", "Expect: 100-Continue", "expect:100-continue"} {
		add("expect", 1, line+"\r\nHost: g\r\n"+h+"\r\n"+body)
	}
	for _, h := range []string{"Expect: 200-ok", "Expect: x", "Expect: 100", "Expect: 100-continue;q=1"} {
		add("expect", 0, line+"\r\nHost: g\r\n"+h+"\r\n"+body)
	}
	add("expect", -1, line+"\r\nHost: g\r\nExpect: 100-continue, x\r\n"+body)
	add("expect", 0, "POST /nowhere HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n"+body, "DELETE /version HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n"+body)
	add("expect", 1, "GET /version HTTP/1.1\r\nHost: g\r\nExpect: 100-continue\r\n\r\n", "POST /v1/embeddings HTTP/1.0\r\nExpect: 100-continue\r\n"+body)
}

// targets: paths that are nearly one of the table's, and what is no path.
func targets(add adder) {
	var near []string
	for _, p := range []string{"/v1/chat/completions", "/v1/models", "/v1/responses/r1/cancel", "/sleep"} {
		last := p[strings.LastIndexByte(p, '/')+1:]
		dir := p[:len(p)-len(last)]
		near = append(near,
			p+"/", p+"//", "/"+p, "//"+p, p+"/.", p+"/..", "/."+p, "/.."+p, "/x/.."+p, "/./."+p, dir+"./"+last, dir+"x/../"+last, dir+"/"+last, p+";", p+";x=y", p+"/;x", dir+";x/"+last, p+"%20", p+"%09", p+"%00", p+"%0a", p+"%0d%0aX:y",
			p+"%3f", p+"%23", p+"#x", p+"#", "/%2e"+p, "/%2e%2e"+p, "/x/%2e%2e"+p, "/x/%2E."+p, "/x/..%2f"+p[1:], "/%2f"+p[1:], dir+"%2f"+last, strings.Replace(p, "/", "%2f", 1), "/"+strings.ReplaceAll(p[1:], "/", "%2F"), dir+fmt.Sprintf("%%%02x", last[0])+last[1:],
			dir+fmt.Sprintf("%%25%02x", last[0])+last[1:], dir+last[:len(last)-1]+fmt.Sprintf("%%%02X", last[len(last)-1]), "\\"+p[1:], dir+"\\"+last, "/x\\.."+p, p+"\\", "/%5c"+p[1:], "/x%5c.."+p, strings.ToUpper(p), dir+strings.ToUpper(last[:1])+last[1:],
			dir+"%c0%ae%c0%ae/"+last, "/%c0%af"+p[1:], "/%e0%80%af"+p[1:], p+"%ff", p+"\xff", p+"ü", p+"%e2%80%8b", p+"\xe2\x80\x8b", "/．．"+p, p+"．", dir+"\u017f"+last[1:], p+"%", p+"%2", p+"%zz", p+"%u0073", p+"*", p+"|", p+"'", p+`"`, p+"<", p+"^", p+"`", p+"{}", p+"~", p+"+", p+",", p+"&a=b", p+":80", p+"@x", p+"=", p+"$", p+"!")
	}
	for _, p := range near {
		if _, relayed := methodOf(p); relayed {
			continue // of a path with one segment, some are the path itself
		}
		add("paths", 0, "POST "+p+" HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}", "GET "+p+" HTTP/1.1\r\nHost: g\r\n\r\n")
	}
	for _, p := range strings.Fields(`/ /sleep /wake_up /is_sleeping /collective_rpc /reset_prefix_cache /reset_mm_cache /server_info /pause /resume /update_weights /init_weight_transfer_engine /abort_requests /scale_elastic_ep
		/is_scaling_elastic_ep /invocations /ping /load /inference/v1/generate /start_profile /stop_profile /docs /redoc /openapi.json /debug/pprof/ /debug/pprof/heap /debug/vars /v1/load_lora_adapter /v1/unload_lora_adapter /v1 /v1/
		/v1/responses /v1/responses/ /v1/responses// /v1/responses/. /v1/responses/.. /v1/responses/a.b /v1/responses/a%2fb /v1/responses/a/b /v1/responses/a/cancel/ /v1/responses/a/cancel/b /v1/responses//cancel /v1/responses/%61 /v1/responses/a;b /v1/responses/ü /v1/responses/a:b /v1/responses/a/../b /v1/responses/a/CANCEL /admin /config /-/reload /.env /favicon.ico`) {
		add("closed paths", 0, "GET "+p+" HTTP/1.1\r\nHost: g\r\n\r\n")
		if p != "/v1/responses" {
			add("closed paths", 0, "POST "+p+" HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}")
		}
	}
	for _, target := range []string{"*", "?", "?x", "v1/models", "./v1/models", "g", "g:80", "g/v1/models", "//g/v1/models", "///v1/models", "http:", "http:v1/models", "http:///sleep", "http://", "http://g", "http://g/", "http://g/sleep", "http://g/v1/%6dodels", "http://g/v1/../v1/models", "file:///etc/passwd", "javascript:x",
		"data:,x", "#", "#/v1/models", "http://g#/v1/models", "http://g\\/v1/models", "http://g;/v1/models/", "mailto:a@b", "http://[::1/v1/models", "http://g:x/v1/models", "http://g:80:80/v1/models", "-", "@", "http://%zz/v1/models", "http//g/v1/models", "://g/v1/models", "1http://g/v1/models", "%2fv1%2fmodels"} {
		add("other forms", 0, "GET "+target+" HTTP/1.1\r\nHost: g\r\n\r\n")
	}
	for _, target := range []string{"http://g/v1/models", "http://other/v1/models", "http://127.0.0.1:22/v1/models", "https://g/v1/models", "HTTP://g/v1/models", "ftp://g/v1/models", "http://169.254.169.254/v1/models", "http://g/v1/models?a=b", "http://g:0/v1/models"} {
		add("other forms", 1, "GET "+target+" HTTP/1.1\r\nHost: g\r\n\r\n")
	}
	for _, target := range []string{"http://u:p@g/v1/models", "http://G/v1/models", "http://[::1]/v1/models", "http:/v1/models", "http:///v1/models", "http://g%20/v1/models", "http://ü/v1/models", "http://a,b/v1/models"} {
		add("other forms", -1, "GET "+target+" HTTP/1.1\r\nHost: g\r\n\r\n")
	}
	for _, q := range []string{"", "a", "a=b", "a=b&c=d", "?", "a?b", "/", "/../sleep", "a=%20", "a=%00", "a=%0d%0aX:y", "a=%ff", "a=b+c", "a=[b]", `a="b"`, "a={b}", "a=|", `a=\`, "a=^", "a=`", "a=<b>", "&", "&&", "=", "==", "a=b=c", "a:b@c", "%23", "~", "'", "http://g/", strings.Repeat("a&", 5000)} {
		add("queries", 1, "GET /version?"+q+" HTTP/1.1\r\nHost: g\r\n\r\n")
	}
	for _, q := range []string{"%", "%z", "%zz", "%2", "a=%", "a=%u0041", ";", "a;b", "a=b;c=d", "#", "a#b", "a=b#c", "\xff", "a=ü", "a=\x80", "\xe2\x80\xa8", "a=b c", "a=\x00", "a=\x01", "a=\t", "a=\x7f", "a=\r", "a=\x0b", "%%", "a=%-1", "?%"} {
		add("queries", 0, "GET /version?"+q+" HTTP/1.1\r\nHost: g\r\n\r\n")
	}
}

func methods(add adder) {
	for _, m := range strings.Fields("GET HEAD PUT PATCH DELETE TRACE CONNECT PRI post Post pOST POSTT POS PO P PROPFIND MKCOL LOCK COPY MOVE SEARCH PURGE TRACK DEBUG LINK BREW M-SEARCH NOTIFY REPORT ! ~ * _ $POST POST! POST_ 1 " + strings.Repeat("X", 300)) {
		for _, p := range []string{"/v1/embeddings", "/version", "/health", "/sleep"} {
			if m == "GET" && p != "/v1/embeddings" {
				continue
			}
			add("methods", 0, m+" "+p+" HTTP/1.1\r\nHost: g\r\nContent-Length: 0\r\n\r\n")
		}
	}
	for _, m := range []string{"(POST)", "PO ST", "POST:", `"POST"`, "POST,GET", "P\x00ST", "POST\x0b", "PÖST", "ＰOST", "POST/", "POST;", "<POST>", "POST=", "PO@ST", "[POST]", "PO\\ST", "{POST}", "POST\xa0"} {
		add("methods", 0, m+" /v1/embeddings HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}")
	}
	for _, target := range []string{"g:80", "127.0.0.1:8000", "/v1/models", "/version", "g", "/", "*", "http://g/v1/models", "[::1]:80", ":80", "/v1/../sleep"} {
		add("methods", 0, "CONNECT "+target+" HTTP/1.1\r\nHost: g\r\n\r\n", "TRACE "+target+" HTTP/1.1\r\nHost: g\r\nMax-Forwards: 0\r\n\r\n")
	}
	add("methods", 1, "OPTIONS /v1/embeddings HTTP/1.1\r\nHost: g\r\nOrigin: http://x\r\nAccess-Control-Request-Method: POST\r\n\r\n")
	add("methods", 0, "OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n", "OPTIONS /sleep HTTP/1.1\r\nHost: g\r\n\r\n", "OPTIONS /health HTTP/1.1\r\nHost: g\r\n\r\n")
}

// hops: headers that are a matter between neighbours, or call others so.
func hops(add adder) {
	for _, h := range []string{
		"Connection: Authorization\r\nAuthorization: x", "Connection: Content-Type\r\nContent-Type: application/json", "Connection: Host", "Connection: Content-Length", "Connection: Transfer-Encoding", "Connection: X-Request-Id\r\nX-Request-Id: a", "Connection: a, b , ,c\r\nA: 1\r\nB: 2\r\nC: 3",
		"Connection: \r\nConnection: A\r\nA: 1", "Connection: A\r\nConnection: B\r\nA: 1\r\nB: 2", "Connection: keep-alive", "Connection: Keep-Alive, X\r\nX: 1\r\nKeep-Alive: timeout=99", "Connection: ,", "Connection: ,,,,", "Connection: \"A\"\r\nA: 1", "Connection: Connection", "Connection: User-Agent\r\nUser-Agent: x", "Connection: Accept",
		"Connection: " + strings.Repeat("a,", 5000), "Connection: \xff", "Connection: a;b", "Connection: TE\r\nTE: trailers", "TE: trailers", "TE: gzip, trailers;q=0.5", "TE:", "Trailer: A", "Trailer: X-Data-Parallel-Rank", "Keep-Alive: timeout=5, max=1000", "Keep-Alive:",
		"Proxy-Connection: keep-alive", "Proxy-Connection: close", "Proxy-Authorization: Basic eDp5", "Proxy-Authenticate: x", "Proxy: http://evil", "Proxy-Foo: x", "Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__", "Upgrade: HTTP/2.0\r\nConnection: Upgrade",
		"Upgrade: h2c", "Upgrade: TLS/1.0\r\nConnection: upgrade", "Upgrade: websocket", "Upgrade:", "Accept-Encoding: gzip", "Accept-Encoding: x, identity;q=0", "HTTP2-Settings: x", "Via: 1.1 x", "Max-Forwards: 0", "Idempotency-Key: a", "X-Request-Id: " + strings.Repeat("a", 500), "X-Request-Id: a\r\nX-Request-Id: b", "X-Request-Id: ../x", "X-Request-Id:",
		"Alt-Used: x", "Early-Data: 1", "Content-Encoding: gzip", "Content-Type: multipart/form-data", "Content-Type: multipart/form-data; boundary=", "Content-Type: x\r\nContent-Type: y", "Age: x", "Date: x", "Origin: null", "Sec-WebSocket-Key: x", "User-Agent:", "User-Agent: a\r\nUser-Agent: b",
	} {
		add("hop by hop", 1, head+h+"\r\nContent-Length: 2\r\n\r\n{}")
	}
	for _, h := range []string{"Connection: close", "Connection: Close", "connection:CLOSE", "Connection: a, close", "Connection: keep-alive, close", "Connection: keep-alive\r\nConnection: close", "Connection: close, Upgrade\r\nUpgrade: h2c", "Connection: \tclose\t", "Connection: close,"} {
		add("hop by hop", 1, head+h+"\r\nContent-Length: 2\r\n\r\n{}", head+h+"\r\nContent-Length: 2\r\n\r\n{}"+inner)
	}
	socket := "GET /v1/realtime HTTP/1.1\r\nHost: g\r\n"
	for _, h := range []string{"Upgrade: websocket\r\nConnection: Upgrade", "Upgrade: WebSocket\r\nConnection: x, upgrade", "Upgrade: websocket", "Upgrade: websocket\r\nConnection: keep-alive, Upgrade, Sec-WebSocket-Key\r\nSec-WebSocket-Key: x", "Upgrade: websocket\r\nUpgrade: h2c\r\nConnection: Upgrade", "Upgrade: websocket\r\nConnection: Upgrade\r\nX_Y: z\r\nX-Data-Parallel-Rank: 1"} {
		add("upgrades", 1, socket+h+"\r\n\r\n", socket+h+"\r\nContent-Length: 2\r\n\r\n{}")
	}
	for _, h := range []string{"A: b", "Upgrade: h2c\r\nConnection: Upgrade", "Connection: Upgrade", "Upgrade: websocket, h2c", "Upgrade: h2c\r\nUpgrade: websocket", "Upgrade:", "Upgrade: websocket/13"} {
		add("upgrades", 0, socket+h+"\r\n\r\n")
	}
}

// connections: what comes one after the other, and in other versions.
func connections(add adder) {
	one := posted("{}")
	add("pipelines", 2, one+one, one+"\r\n"+one, one+"\n"+one, one+"GET /v1/models HTTP/1.1\r\nHost: g\r\n\r\n", "GET /version HTTP/1.1\r\nHost: g\r\n\r\n"+one, "OPTIONS /v1/embeddings HTTP/1.1\r\nHost: g\r\n\r\n"+one, "GET /sleep HTTP/1.1\r\nHost: g\r\n\r\n"+one+one, "GET /health HTTP/1.1\r\nHost: g\r\n\r\n"+one+one, one+"POST /sleep HTTP/1.1\r\nHost: g\r\nContent-Length: 2\r\n\r\n{}"+one)
	add("pipelines", 5, strings.Repeat(one, 5))
	add("pipelines", 100, strings.Repeat(one, 100))
	add("pipelines", 1, one+"x", one+"\x00", one+"\r\n\r\n\r\n"+one, one+"GET / HTTP/1.1\r\n\r\n"+one, one+"POST", one+"GET /sleep HTTP/1.1\r\nHost: g\r\n\r\n", one+" "+one, one+"HTTP/1.1 200 OK\r\n\r\n", one+head+"Content-Length: x\r\n\r\n"+one, one+head+"Content-Length: 9\r\n\r\n{", one+head+"Transfer-Encoding: x\r\n\r\n"+one,
		head+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+one, head+"Connection: close\r\nContent-Length: 2\r\n\r\n{}"+one, "GET /version HTTP/1.1\r\nHost: g\r\n\r\n\r\n"+one, "GET /version HTTP/1.1\r\nHost: g\r\n\r\nx"+one)
	add("pipelines", 2, one+head+"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"+one, one+head+"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"+one)
	const preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	add("http/2 prefaces", 0, preface, preface+inner, preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00", preface+strings.Repeat("\xff", 100), "PRI * HTTP/2.0\r\n\r\n", "PRI * HTTP/2.0\r\nHost: g\r\n\r\nSM\r\n\r\n", "PRI * HTTP/1.1\r\nHost: g\r\n\r\nSM\r\n\r\n", "PRI /version HTTP/2.0\r\n\r\nSM\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"+inner, "GET * HTTP/2.0\r\n\r\nSM\r\n\r\n", "pri * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	add("http/2 prefaces", 1, one+preface, one+preface+"\x00\x00\x00\x04\x00\x00\x00\x00\x00", one+preface+inner, head+"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"+preface, "GET /version HTTP/1.1\r\nHost: g\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"+preface)
	old := func(path, headers, body string) string { return path + " HTTP/1.0\r\n" + headers + "\r\n" + body }
	for _, keep := range []string{"", "Connection: keep-alive\r\n", "Connection: Keep-Alive, x\r\n", "Connection: close\r\n"} {
		add("http/1.0", 1, old("POST /v1/embeddings", keep+"Content-Length: 2\r\n", "{}"), old("POST /v1/embeddings", keep+"Content-Length: 2\r\n", "{}"+inner), old("POST /v1/embeddings", keep, "{}"), old("POST /v1/embeddings", keep, inner), old("GET /version", keep, ""), old("GET /version", keep+"Host: g\r\n", inner),
			old("POST /v1/embeddings", keep+"Transfer-Encoding: chunked\r\n", chunk("{}")+"0\r\n\r\n"), old("POST /v1/embeddings", keep+"Transfer-Encoding: chunked\r\n", inner), old("POST /v1/embeddings", keep+"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "{}"+inner), old("POST /v1/embeddings", keep+"Transfer-Encoding: gzip\r\n", inner))
		add("http/1.0", 0, old("POST /v1/embeddings", keep+"Content-Length: 5\r\n", "{}"), old("POST /v1/embeddings", keep+"Content-Length: x\r\n", "{}"), old("POST /v1/embeddings", keep+"Host: g\r\nHost: h\r\n", ""), old("GET /sleep", keep, inner), old("PUT /version", keep, inner))
	}
}

// bodies go on as they are, whatever they are; who is asked for usage aside.
func bodies(add adder) {
	deep := func(open, close string, n int) string { return strings.Repeat(open, n) + strings.Repeat(close, n) }
	texts := []string{
		"", " ", "{", "}", "null", "true", "0", `""`, "[]", "{}", "{}{}", "{}\n", "\ufeff{}", "\x00", "{}\x00", "\xff\xfe", "{\"model\":\"\xff\"}", "{\"\xff\":1}", `{"model":"\u0000"}`, `{"model":"\ud800"}`, `{"model":"\ud83d\ude00"}`, `{"model":"a\nb"}`, "{\"model\":\"a\nb\"}",
		`{"model":"a","model":"b"}`, `{"stream":false,"stream":true}`, `{"stream":true,"stream":false}`, `{"stream":true,"stream_options":{},"stream_options":null}`, `{"stream":true,"stream_options":{"include_usage":false,"include_usage":true}}`, `{"Stream":true}`, `{"stream":"true"}`, `{"stream":1}`, `{"stream":1e0}`, `{"stream":[true]}`, `{"stream":null}`,
		`{"n":1000000000}`, `{"n":-1}`, `{"n":1e400}`, `{"n":1e-400}`, `{"n":99999999999999999999999999999999}`, `{"n":00}`, `{"n":NaN}`, `{"n":Infinity}`, `{"n":-0}`, `{"n":0x10}`, `{"max_tokens":9223372036854775808}`, `{"n":1.` + strings.Repeat("0", 5000) + `}`, `{"n":` + strings.Repeat("9", 20_000) + `}`,
		deep("[", "]", 50_000), deep(`{"a":`, "}", 20_000), strings.Repeat("[", 100_000), `{"a":` + strings.Repeat("[", 100_000), `{"stream":true,"x":` + deep("[", "]", 10_000) + `}`, `{"model":"` + strings.Repeat("a", 100_000) + `"}`, `{"` + strings.Repeat("a", 100_000) + `":1}`, "{" + strings.Repeat(`"model":"m",`, 5000) + `"a":1}`,
		`{"__proto__":{"stream":true}}`, `{"constructor":1}`, `{"api_base":"http://evil","base_url":"http://evil"}`, `{"model":"../../etc/passwd"}`, `{"model":"m\r\nX: y"}`, `{"model":"{{7*7}}"}`, `{"model":{"a":1}}`, `{"model":["m"]}`, `{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"http://169.254.169.254/"}}]}]}`,
		`{'model':'m'}`, `{model:"m"}`, `{"a":1,}`, `/* x */{}`, "{\"a\":\"\t\"}", "a=b&c=d", "<xml/>", inner, "0\r\n\r\n" + inner, "\r\n", "\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n", "\x1f\x8b\x08\x00", strings.Repeat("\x00", 100_000), strings.Repeat("a", 300_000), `{"stream":true}`, ` {"stream":true}`, `{"stream":true,"stream_options":7}`, "{\"stream\":true,\"stream_options\":{\"include_usage\":\"\xff\"}}",
	}
	for _, path := range []string{"/v1/chat/completions", "/v1/embeddings", "/v1/completions"} {
		for _, text := range texts {
			add("bodies", 1, strings.Replace(posted(text), "/v1/embeddings", path, 1))
		}
	}
	for _, text := range texts {
		if len(text) == 0 || len(text) > 1000 {
			continue
		}
		add("bodies in chunks", 1, said("Transfer-Encoding: chunked\r\n", chunk(text)+"0\r\n\r\n"+inner))
		var small bytes.Buffer
		for i := range text {
			small.WriteString(chunk(text[i : i+1]))
		}
		if small.Len() == 0 || len(text) > 200 || !isASCII(text) {
			continue
		}
		add("bodies in chunks", 1, said("Transfer-Encoding: chunked\r\n", small.String()+"0\r\n\r\n"))
	}
	for _, form := range []string{
		"--b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--b--\r\n", "--b\r\n\r\n", "--b--", "", "--b\r\nContent-Disposition: form-data; name=model\r\n\r\nm\r\n", strings.Repeat("--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nx\r\n", 500) + "--b--", "--b\r\n" + strings.Repeat("A: b\r\n", 5000) + "\r\n",
		"{\"stream\":true}\r\n--b\r\nContent-Disposition: form-data; name=\"stream\"\r\n\r\ntrue\r\n--b--\r\n",
	} {
		for _, path := range []string{"/v1/audio/transcriptions", "/v1/chat/completions"} {
			add("forms", 1, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: g\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: %d\r\n\r\n%s", path, len(form), form))
		}
	}
}

func isASCII(s string) bool { return !strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }
