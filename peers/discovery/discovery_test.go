package discovery

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/portolan-project/portolan/internal/fail"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	zeros = "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	empty = "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
)

// nameServer answers for names in the form that zone files have, and gives a resolver
// that asks it alone.
func nameServer(t *testing.T, file string) *net.Resolver {
	t.Helper()
	known := map[string][]dns.RR{}
	z := dns.NewZoneParser(strings.NewReader(file), ".", "")
	for rr, ok := z.Next(); ok; rr, ok = z.Next() {
		k := fmt.Sprint(strings.ToLower(rr.Header().Name), rr.Header().Rrtype)
		known[k] = append(known[k], rr)
	}
	if err := z.Err(); err != nil {
		t.Fatal(err)
	}
	serve := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		a := new(dns.Msg).SetReply(q)
		name := strings.ToLower(q.Question[0].Name)
		a.Answer = known[fmt.Sprint(name, q.Question[0].Qtype)]
		if strings.Contains(name, "broken") {
			a.Rcode = dns.RcodeServerFailure
		} else if len(a.Answer) == 0 {
			a.Rcode = dns.RcodeNameError
		}
		if _, tcp := w.RemoteAddr().(*net.TCPAddr); !tcp {
			a.Truncate(512)
		}
		_ = w.WriteMsg(a)
	})
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0") // the same port may be in use
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: serve}, {Listener: tcp, Handler: serve}} {
		up, done := make(chan bool), make(chan error, 1)
		s.NotifyStartedFunc = func() { close(up) }
		go func() { done <- s.ActivateAndServe() }()
		<-up
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-done
		})
	}
	at := map[string]string{"udp": udp.LocalAddr().String(), "tcp": tcp.Addr().String()}
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network[:3], at[network[:3]])
	}}
}

const records = `
_portolan-peer._tcp.bsc.example.    60 IN SRV 10 1 8700 gw1.bsc.example.
_portolan-peer._tcp.bsc.example.    60 IN SRV 20 9 8701 gw2.bsc.example.
_portolan-peer._tcp.bsc.example.    60 IN TXT "txtvers=1 Domain=bsc.example; path=/gw/peer" " version=1"
_portolan-peer._tcp.bsc.example.    60 IN TXT "fingerprint=` + zeros + ` colour=blue"
_portolan-peer._tcp.bare.example.   60 IN SRV 0 0 443 gw.bare.example.
_portolan-peer._tcp.none.example.   60 IN SRV 0 0 0 .
_portolan-peer._tcp.odd.example.    60 IN SRV 0 0 0 gw.odd.example.
_portolan-peer._tcp.odd.example.    60 IN SRV 0 0 8700 gw.odd.example.
_portolan-peer._tcp.odd.example.    60 IN TXT "v=spf1 -all" " domain=od\007d fingerprint=md5 =x nothing"
_portolan-peer._tcp.plain.example.  60 IN SRV 0 0 8080 gw.plain.example.
_portolan-peer._tcp.plain.example.  60 IN TXT "tls=no;domain=other.example"
`

// many has more records than anybody needs, which come over TCP.
func many() string {
	var b strings.Builder
	b.WriteString(records)
	for i := range 200 {
		fmt.Fprintf(&b, "_portolan-peer._tcp.many.example. 60 IN SRV 0 0 %d gw%d.many.example.\n", 1000+i, i)
		fmt.Fprintf(&b, "_portolan-peer._tcp.many.example. 60 IN TXT \"key%d=%s\"\n", i, strings.Repeat("x", 200))
	}
	return b.String()
}

func TestDNS(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	f := &Finder{DNS: nameServer(t, many()), Own: "bare.example", Now: func() time.Time { return now }}
	in := func(p Proposal) Proposal { p.Sources, p.Found = []Source{InDNS}, now; return p }
	for _, c := range []struct {
		name   string
		want   []Proposal
		remark string // "" is none
	}{
		{"bsc.example", []Proposal{
			in(Proposal{Domain: "bsc.example", URL: "https://gw1.bsc.example:8700/gw/peer", Version: "1", Fingerprint: zeros, priority: 10, weight: 1}),
			in(Proposal{Domain: "bsc.example", URL: "https://gw2.bsc.example:8701/gw/peer", Version: "1", Fingerprint: zeros, priority: 20, weight: 9}),
		}, ""},
		{"bare.example", nil, ""}, // our own
		{"none.example", nil, "has no peer gateway"},
		{"nobody.example", nil, "no SRV record of _portolan-peer._tcp.nobody.example"},
		{"broken.example", nil, "could not be asked"},
		{"odd.example", []Proposal{in(Proposal{Domain: "odd.example", URL: "https://gw.odd.example:8700/peer"})}, "names no host and port"},
		{"plain.example.", []Proposal{in(Proposal{Domain: "other.example", URL: "http://gw.plain.example:8080/peer"})}, ""},
	} {
		found, err := f.Find(t.Context(), Query{DNS: []string{c.name}, Wait: 20 * time.Second})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if len(found.Proposals) != len(c.want) || len(c.want) > 0 && !reflect.DeepEqual(found.Proposals, c.want) {
			t.Errorf("%s: %+v, not %+v", c.name, found.Proposals, c.want)
		}
		if all := strings.Join(found.Remarks, "; "); (c.remark == "") != (all == "") || !strings.Contains(all, c.remark) || strings.ContainsRune(all, 7) {
			t.Errorf("%s: %q", c.name, all)
		}
	}
	found, err := f.Find(t.Context(), Query{DNS: []string{"many.example", "bsc.example"}, Wait: 20 * time.Second})
	if err != nil || len(found.Proposals) != maxSRV+2 || !strings.Contains(fmt.Sprint(found.Remarks), "200 SRV records") {
		t.Errorf("%v: %d, %q", err, len(found.Proposals), found.Remarks)
	}
}

// A name server that says nothing is a remark within the time, and takes nothing from the
// other sources.
func TestDNSThatSaysNothing(t *testing.T) {
	silent, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	f := &Finder{
		DNS: &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "udp", silent.LocalAddr().String())
		}},
		Static: func() []Proposal {
			return []Proposal{{Domain: "fiu.example", URL: "https://gw.fiu.example/peer"}, {Domain: "bad one", URL: "https://x/peer"}}
		},
	}
	found, err := f.Find(t.Context(), Query{DNS: []string{"bsc.example"}, Wait: 50 * time.Millisecond})
	if err != nil || len(found.Proposals) != 1 || !reflect.DeepEqual(found.Proposals[0].Sources, []Source{Listed}) {
		t.Errorf("%v: %+v", err, found)
	}
	if all := strings.Join(found.Remarks, "; "); !strings.Contains(all, "could not be asked") || !strings.Contains(all, "without blanks") {
		t.Errorf("%q", all)
	}
}

func TestQueriesAreRefused(t *testing.T) {
	f := &Finder{}
	for _, c := range []struct {
		q    Query
		kind fail.Kind
	}{
		{Query{LAN: true}, fail.Unsupported},
		{Query{DNS: []string{"a.example"}}, fail.Unsupported},
		{Query{DNS: make([]string, MaxDomains+1)}, fail.Invalid},
		{Query{DNS: []string{""}}, fail.Invalid},
		{Query{DNS: []string{"a..b"}}, fail.Invalid},
		{Query{DNS: []string{"a\x00b"}}, fail.Invalid},
		{Query{DNS: []string{strings.Repeat("a", 64)}}, fail.Invalid},
		{Query{DNS: []string{strings.Repeat("abc.", 70)}}, fail.Invalid},
		{Query{Wait: -1}, fail.Invalid},
		{Query{Wait: MaxWait + 1}, fail.Invalid},
	} {
		if _, err := f.Find(t.Context(), c.q); fail.KindOf(err) != c.kind {
			t.Errorf("%+v: %v", c.q, err)
		}
	}
	if found, err := f.Find(t.Context(), Query{}); err != nil || found.Proposals == nil {
		t.Errorf("%+v %v", found, err)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		p  Proposal
		ok bool
	}{
		{Proposal{Domain: "a.example", URL: "https://gw.a.example/peer"}, true},
		{Proposal{Domain: "a.example", URL: "https://[fe80::1%25eth0]:8700/peer", Version: "1", Fingerprint: empty}, true},
		{Proposal{Domain: "", URL: "https://gw.a.example/peer"}, false},
		{Proposal{Domain: "a/b", URL: "https://gw.a.example/peer"}, false},
		{Proposal{Domain: "ä.example", URL: "https://gw.a.example/peer"}, false},
		{Proposal{Domain: strings.Repeat("x", 256), URL: "https://gw.a.example/peer"}, false},
		{Proposal{Domain: "a", URL: ""}, false},
		{Proposal{Domain: "a", URL: "gw.a.example/peer"}, false},
		{Proposal{Domain: "a", URL: "ftp://gw.a.example/peer"}, false},
		{Proposal{Domain: "a", URL: "https:gw"}, false},
		{Proposal{Domain: "a", URL: "https:///peer"}, false},
		{Proposal{Domain: "a", URL: "https://u@gw/peer"}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer?x=1"}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer#x"}, false},
		{Proposal{Domain: "a", URL: "https://gw/pe\ner"}, false},
		{Proposal{Domain: "a", URL: "https://" + strings.Repeat("g", 254) + "/peer"}, false},
		{Proposal{Domain: "a", URL: "https://gw/" + strings.Repeat("p", MaxURL)}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer", Version: strings.Repeat("1", 17)}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer", Version: "1\t"}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer", Fingerprint: "SHA1:xx"}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer", Fingerprint: zeros + "\n"}, false},
		{Proposal{Domain: "a", URL: "https://gw/peer", Fingerprint: zeros[:len(zeros)-1] + "B"}, false}, // bits that mean nothing
	} {
		if err := c.p.Check(); (err == nil) != c.ok || err != nil && fail.KindOf(err) != fail.Invalid {
			t.Errorf("%+v: %v", c.p, err)
		}
	}
}

func TestMerge(t *testing.T) {
	at := func(s int64) time.Time { return time.Unix(s, 0) }
	got := Merge([]Proposal{
		{Domain: "b.example", URL: "https://gw.b.example/peer", Sources: []Source{OnLAN}, Found: at(1), Fingerprint: zeros},
		{Domain: "a.example", URL: "https://gw2.a.example/peer", Sources: []Source{InDNS}, Found: at(2), priority: 20},
		{Domain: "a.example", URL: "https://gw1.a.example/peer", Sources: []Source{InDNS}, Found: at(2), priority: 10},
		{Domain: "B.example", URL: "https://GW.b.example:443/peer/", Sources: []Source{Listed}, Found: at(3), Version: "1"},
		{Domain: "c.example", URL: "https://gw.c.example/peer", Sources: []Source{InDNS}, Found: at(4), Fingerprint: zeros},
		{Domain: "c.example", URL: "https://gw.c.example/peer", Sources: []Source{OnLAN}, Found: at(3), Fingerprint: empty},
		{Domain: "c.example", URL: "https://gw.c.example/peer", Sources: []Source{OnLAN}, Found: at(2), Fingerprint: empty},
	})
	want := []Proposal{
		{Domain: "a.example", URL: "https://gw1.a.example/peer", Sources: []Source{InDNS}, Found: at(2), priority: 10},
		{Domain: "a.example", URL: "https://gw2.a.example/peer", Sources: []Source{InDNS}, Found: at(2), priority: 20},
		{Domain: "b.example", URL: "https://gw.b.example/peer", Sources: []Source{Listed, OnLAN}, Found: at(3), Fingerprint: zeros, Version: "1"},
		{
			Domain: "c.example", URL: "https://gw.c.example/peer", Sources: []Source{InDNS, OnLAN}, Found: at(4),
			Conflict: "two fingerprints were found, " + zeros + " and " + empty + ": ask its administrator",
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("\n%+v, not\n%+v", got, want)
	}
}

// Whatever comes, and in whatever order: what is found is within the bounds, keeps to
// Check, and is in order without twins; and a fingerprint is only what all sources say.
func TestFoundKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prints := rapid.SampledFrom([]string{"", zeros, empty, "x"})
		given := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Proposal {
			return Proposal{
				Domain:      rapid.OneOf(rapid.SampledFrom([]string{"a.example", "A.example", "own.example", "b\x00"}), rapid.StringN(0, 300, 300)).Draw(t, "domain"),
				URL:         rapid.SampledFrom([]string{"https://a/peer", "https://A:443/peer", "https://b:1/peer", "http://c/peer", "b"}).Draw(t, "url"),
				Fingerprint: prints.Draw(t, "fingerprint"),
			}
		}), 0, 40).Draw(t, "given")
		copies := rapid.IntRange(1, 60).Draw(t, "copies")
		f := &Finder{Own: "own.example", Static: func() []Proposal {
			var out []Proposal
			for i := range copies {
				for _, p := range given {
					p.Domain += map[bool]string{true: fmt.Sprint(i)}[i > 0]
					out = append(out, p)
				}
			}
			return out
		}}
		found, err := f.Find(context.Background(), Query{})
		if err != nil {
			t.Fatal(err)
		}
		if len(found.Proposals) > MaxProposals || len(found.Remarks) > maxRemarks+1 {
			t.Fatalf("%d proposals, %d remarks", len(found.Proposals), len(found.Remarks))
		}
		seen := map[string]bool{}
		for _, p := range found.Proposals {
			k := strings.ToLower(p.Domain) + " " + normal(p.URL)
			if err := p.Check(); err != nil || seen[k] || strings.EqualFold(p.Domain, "own.example") {
				t.Fatalf("%+v: %v, twice %v", p, err, seen[k])
			}
			seen[k] = true
		}
		for _, r := range found.Remarks {
			if len(r) > 1100 || strings.ContainsFunc(r, func(r rune) bool { return r < ' ' }) {
				t.Fatalf("%q", r)
			}
		}
	})
}

func FuzzTexts(f *testing.F) {
	for _, s := range []string{"domain=a.example\x1fpath=/peer", "domain=\x1fDOMAIN=b", "=\x1f\x1fpath=/a?b", "fingerprint=" + zeros + "\x1ftls=NO\x1fversion=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, remark := readTexts(strings.Split(s, "\x1f"))
		if !printable(strings.ReplaceAll(remark, " ", "")) {
			t.Errorf("%q", remark)
		}
		p := a.proposal("gw.example:8700")
		if a.domain == "" {
			p.Domain = "x"
		}
		if err := p.Check(); err != nil {
			t.Errorf("%q gives %+v: %v", s, p, err)
		}
		again, remark := readTexts(a.texts())
		if a.domain != "" && (again != a || remark != "") {
			t.Errorf("%+v is read as %+v: %s", a, again, remark)
		}
		if _, err := json.Marshal(p); err != nil {
			t.Error(err)
		}
	})
}
