package e2e

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/portolan-project/portolan/bes"
	"github.com/portolan-project/portolan/internal/soap"
)

// memory gives a line of /proc/PID/status in bytes.
func (g *gateway) memory(t testing.TB, field string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.cmd.Process.Pid))
	if err != nil {
		t.Fatalf("the gateway is gone: %v\n%s", err, g.log.tail())
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n << 10
		}
	}
	t.Fatalf("/proc has no %s", field)
	return 0
}

const plainRequest = `<s:Envelope xmlns:s="` + soap.NS11 + `"><s:Body><b:GetFactoryAttributesDocument xmlns:b="` + bes.NSFactory + `"/></s:Body></s:Envelope>`

// alive fails the test unless an ordinary request is answered.
func (g *gateway) alive(t testing.TB) {
	t.Helper()
	status, _, body, err := post(t.Context(), g.endpoint, "text/xml", "", []byte(plainRequest))
	if err != nil || status != http.StatusOK {
		t.Fatalf("an ordinary request got HTTP %d, %v: %.300s", status, err, body)
	}
}

func inEnvelope(inside string) string {
	return `<s:Envelope xmlns:s="` + soap.NS11 + `">` + inside + `</s:Envelope>`
}

// TestHostile sends the process what is meant to harm it, many at once, and
// bounds what it costs in memory.
func TestHostile(t *testing.T) {
	bomb := `<!DOCTYPE x [<!ENTITY e0 "ha">`
	for i := 1; i < 20; i++ {
		bomb += fmt.Sprintf(`<!ENTITY e%d "%s">`, i, strings.Repeat(fmt.Sprintf("&e%d;", i-1), 10))
	}
	bomb += `]>` + inEnvelope(`<s:Body><x:y xmlns:x="urn:x">&e19;</x:y></s:Body>`)
	var attributes, namespaces strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&attributes, ` a%d="v"`, i)
		fmt.Fprintf(&namespaces, ` xmlns:n%d="urn:n"`, i)
	}
	messages := map[string]string{
		"entity bomb":        bomb,
		"external entity":    `<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>` + inEnvelope(`<s:Body><x:y xmlns:x="urn:x">&e;</x:y></s:Body>`),
		"a million levels":   inEnvelope(`<s:Body>` + strings.Repeat("<a>", 1_000_000)),
		"2 million elements": inEnvelope(`<s:Body><x:y xmlns:x="urn:x">` + strings.Repeat("<a/>", 1_900_000) + `</x:y></s:Body>`),
		"300 000 attributes": inEnvelope(`<s:Body><x:y xmlns:x="urn:x"` + attributes.String() + `/></s:Body>`),
		"300 000 namespaces": inEnvelope(`<s:Body><x:y xmlns:x="urn:x"` + namespaces.String() + `/></s:Body>`),
		"8 MiB of text":      inEnvelope(`<s:Body><x:y xmlns:x="urn:x">` + strings.Repeat("x", 7<<20) + `</x:y></s:Body>`),
		"a long name":        inEnvelope(`<s:Body><` + strings.Repeat("n", 4<<20) + `/></s:Body>`),
		"100 000 comments":   inEnvelope(strings.Repeat("<!-- c -->", 100_000) + `<s:Body><x:y xmlns:x="urn:x"/></s:Body>`),
		"a vector of 40 000": inEnvelope(`<s:Body><b:GetActivityStatuses xmlns:b="` + bes.NSFactory + `">` + strings.Repeat(`<b:ActivityIdentifier><w:Address xmlns:w="`+soap.NSWSA+`">http://x/bes/a/1</w:Address></b:ActivityIdentifier>`, 40_000) + `</b:GetActivityStatuses></s:Body>`),
		"control characters": inEnvelope("<s:Body>\x00\x01\x02</s:Body>"),
		"not UTF-8":          inEnvelope("<s:Body>\xff\xfe\xfd</s:Body>"),
		"unfinished":         inEnvelope(`<s:Body>`)[:60],
		"nothing":            "",
	}
	g := start(t)
	g.alive(t)
	before := g.memory(t, "VmRSS")
	for name, m := range messages {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for range 24 {
				wg.Go(func() {
					status, _, body, err := post(t.Context(), g.endpoint, "text/xml; charset=utf-8", "", []byte(m))
					if err != nil {
						t.Errorf("no answer: %v", err)
						return
					}
					if status == http.StatusRequestEntityTooLarge || status == http.StatusServiceUnavailable {
						return
					}
					e, err := readEnvelope(body)
					if err != nil {
						t.Errorf("HTTP %d: %v", status, err)
						return
					}
					if !e.fault() || status != http.StatusInternalServerError || (e.top != "Client" && e.top != "ActionNotSupported") || e.reason == "" {
						t.Errorf("wanted a Client fault with a sentence, got HTTP %d %.300s", status, e)
					}
				})
			}
			wg.Wait()
			g.alive(t)
		})
	}
	peak := g.memory(t, "VmHWM")
	t.Logf("resident %d MiB before, %d MiB at most", before>>20, peak>>20)
	if peak > before+1<<30 {
		t.Errorf("the messages cost %d MiB at most: wanted below 1024", (peak-before)>>20)
	}
}

// TestHostileWithoutEnd sends bodies that do not end, and compressed ones that
// grow: the gateway stops reading at its bound.
func TestHostileWithoutEnd(t *testing.T) {
	g := start(t)
	g.alive(t)
	before := g.memory(t, "VmRSS")
	t.Run("chunked without end", func(t *testing.T) {
		const most = 256 << 20
		body := &counted{Reader: io.LimitReader(io.MultiReader(strings.NewReader(inEnvelope("")[:50]+`<s:Body>`), blanks{}), most)}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.endpoint, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/xml")
		res, err := http.DefaultClient.Do(req)
		if err == nil {
			defer res.Body.Close()
			if res.StatusCode < 400 {
				t.Errorf("HTTP %d", res.StatusCode)
			}
		}
		if n := body.read(); n >= most {
			t.Errorf("the gateway read all of %d MiB", n>>20)
		}
		g.alive(t)
	})
	t.Run("announced too long", func(t *testing.T) {
		c := g.dial(t)
		fmt.Fprintf(c, "POST /bes HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 1000000000000\r\n\r\n<")
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err != nil && n == 0 {
			t.Fatalf("no answer: %v", err)
		}
		if got := string(b[:n]); !strings.HasPrefix(got, "HTTP/1.1 413") && !strings.HasPrefix(got, "HTTP/1.1 500") {
			t.Errorf("got %q", got)
		}
	})
	t.Run("gzip", func(t *testing.T) {
		var z bytes.Buffer
		w := gzip.NewWriter(&z)
		if _, err := io.CopyN(w, blanks{}, 512<<20); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, g.endpoint, &z)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "text/xml")
		req.Header.Set("Content-Encoding", "gzip")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode < 400 {
			t.Errorf("HTTP %d", res.StatusCode)
		}
		g.alive(t)
	})
	t.Run("headers without end", func(t *testing.T) {
		c := g.dial(t)
		fmt.Fprintf(c, "POST /bes HTTP/1.1\r\nHost: x\r\n")
		line := "X-Fill: " + strings.Repeat("x", 8000) + "\r\n"
		refused := false
		for range 2000 {
			if _, err := io.WriteString(c, line); err != nil {
				refused = true
				break
			}
		}
		if !refused {
			b := make([]byte, 16)
			n, _ := c.Read(b)
			refused = strings.HasPrefix(string(b[:n]), "HTTP/1.1 4")
		}
		if !refused {
			t.Error("16 MB of headers were taken")
		}
		g.alive(t)
	})
	peak := g.memory(t, "VmHWM")
	t.Logf("resident %d MiB before, %d MiB at most", before>>20, peak>>20)
	if peak > before+300<<20 {
		t.Errorf("bodies without end cost %d MiB at most: wanted below 300", (peak-before)>>20)
	}
}

// TestSlowClients: many clients that send a byte now and then hold connections,
// and neither memory nor the others' turn. The gateway closes those that stay
// silent before their headers are whole.
func TestSlowClients(t *testing.T) {
	g := start(t)
	before := g.memory(t, "VmRSS")
	const clients = 500
	var held []net.Conn
	for i := range clients {
		c := g.dial(t)
		switch i % 3 {
		case 0: // silent
		case 1: // headers that never end
			fmt.Fprintf(c, "POST /bes HTTP/1.1\r\nHost: x\r\nX-Slow: ")
		case 2: // a body that never ends
			fmt.Fprintf(c, "POST /bes HTTP/1.1\r\nHost: x\r\nContent-Type: text/xml\r\nContent-Length: 5000000\r\n\r\n<s:Envelope")
		}
		held = append(held, c)
	}
	for range 20 {
		g.alive(t)
	}
	now := g.memory(t, "VmRSS")
	t.Logf("resident %d MiB before, %d MiB with %d slow clients", before>>20, now>>20, clients)
	if now > before+200<<20 {
		t.Errorf("%d slow clients cost %d MiB", clients, (now-before)>>20)
	}
	if testing.Short() {
		return
	}
	// Those that never finish their headers are gone after a while.
	if err := held[1].SetReadDeadline(time.Now().Add(40 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, held[1]); err != nil {
		t.Errorf("a client whose headers never end is still connected after 40 s: %v", err)
	}
}

func (g *gateway) dial(t testing.TB) net.Conn {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), 10*time.Second)
	defer stop()
	c, err := new(net.Dialer).DialContext(ctx, "tcp", g.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(60 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// blanks is white space without end.
type blanks struct{}

func (blanks) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = ' '
	}
	return len(b), nil
}

// counted counts what is read from it.
type counted struct {
	io.Reader
	mu sync.Mutex
	n  int64
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n += int64(n)
	return n, err
}

func (c *counted) read() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}
