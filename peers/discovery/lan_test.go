package discovery

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/mdns"
	"github.com/miekg/dns"

	"github.com/portolan-project/portolan/internal/fail"
)

// loopback gives the name of the loopback interface, and skips where multicast does not
// work on it.
func loopback(t *testing.T) *net.Interface {
	t.Helper()
	all, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 || i.Flags&net.FlagUp == 0 {
			continue
		}
		c, err := net.ListenMulticastUDP("udp4", &i, &net.UDPAddr{IP: net.IPv4(224, 0, 0, 251), Port: 5353})
		if err != nil {
			t.Skip("multicast DNS can't be listened for on the loopback interface: ", err)
		}
		_ = c.Close()
		return &i
	}
	t.Skip("there is no loopback interface")
	return nil
}

// announced announces until the test ends.
func announced(t *testing.T, l *LAN, a Announcement) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Announce(ctx, a) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// browse browses until the domains are there; multicast may lose packets.
func browse(t *testing.T, l *LAN, domains ...string) *Found {
	t.Helper()
	var last *Found
	for wait := 100 * time.Millisecond; wait < 10*time.Second; wait *= 2 {
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		found, err := l.Browse(ctx)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for _, p := range found.Proposals {
			have[p.Domain] = true
		}
		all := true
		for _, d := range domains {
			all = all && have[d]
		}
		if last = found; all {
			return found
		}
	}
	t.Fatalf("not all of %q were found: %+v", domains, last)
	return nil
}

func TestAnnouncedIsFound(t *testing.T) {
	l := &LAN{Interface: loopback(t).Name}
	long := strings.Repeat("long-", 20) + ".example"
	announced(t, l, Announcement{Domain: "bsc.example", Port: 8700, Path: "/gw/peer", Version: "1", Fingerprint: zeros})
	announced(t, l, Announcement{Domain: "fiu.example", Port: 8701, Plain: true})
	announced(t, l, Announcement{Domain: long, Port: 8702})
	found := browse(t, l, "bsc.example", "fiu.example", long)
	got := map[string]Proposal{}
	for _, p := range found.Proposals {
		got[p.Domain] = p
	}
	want := map[string]Proposal{
		"bsc.example": {Domain: "bsc.example", URL: "https://127.0.0.1:8700/gw/peer", Version: "1", Fingerprint: zeros},
		"fiu.example": {Domain: "fiu.example", URL: "http://127.0.0.1:8701/peer"},
		long:          {Domain: long, URL: "https://127.0.0.1:8702/peer"},
	}
	for d, p := range want {
		if !reflect.DeepEqual(got[d], p) {
			t.Errorf("%+v, not %+v", got[d], p)
		}
	}
}

// answers is a zone that answers a browse with records of its own.
type answers []dns.RR

func (a answers) Records(q dns.Question) []dns.RR {
	if q.Name == Service+"."+lanDomain+"." && q.Qtype == dns.TypePTR {
		return a
	}
	return nil
}

// instance gives the records of one.
func instance(name string, port uint16, ip net.IP, texts ...string) []dns.RR {
	at := name + "." + Service + "." + lanDomain + "."
	h := func(n string, t uint16) dns.RR_Header {
		return dns.RR_Header{Name: n, Rrtype: t, Class: dns.ClassINET, Ttl: 1}
	}
	host := name + "-host.local."
	return []dns.RR{
		&dns.PTR{Hdr: h(Service+"."+lanDomain+".", dns.TypePTR), Ptr: at},
		&dns.SRV{Hdr: h(at, dns.TypeSRV), Port: port, Target: host},
		&dns.A{Hdr: h(host, dns.TypeA), A: ip},
		&dns.TXT{Hdr: h(at, dns.TypeTXT), Txt: texts},
	}
}

// What strangers on the LAN answer is checked, and none of it hides what is right.
func TestStrangersOnTheLAN(t *testing.T) {
	iface := loopback(t)
	l := &LAN{Interface: iface.Name}
	here := net.IPv4(127, 0, 0, 1)
	for i, records := range [][]dns.RR{
		instance("escape", 8700, here, "domain=esc\x1b[31m.example"),
		instance("slash", 8700, here, "domain=a/b.example"),
		instance("nothing", 8700, here),
		instance("port", 0, here, "domain=port.example"),
		instance("address", 8700, net.IPv4zero, "domain=address.example"),
		instance("crowd", 8700, net.IPv4(224, 0, 0, 1), "domain=crowd.example"),
		instance("path", 8703, here, "domain=path.example", "path=//evil.example/", "fingerprint=SHA256:short"),
	} {
		s, err := mdns.NewServer(&mdns.Config{Zone: answers(records), Iface: iface})
		if err != nil {
			t.Fatal(i, err)
		}
		t.Cleanup(func() { _ = s.Shutdown() })
	}
	announced(t, l, Announcement{Domain: "good.example", Port: 8700})
	f := &Finder{LAN: l, Own: "path.example"}
	var found *Found
	for wait := 200 * time.Millisecond; ; wait *= 2 {
		var err error
		if found, err = f.Find(t.Context(), Query{LAN: true, Wait: wait}); err != nil {
			t.Fatal(err)
		}
		if len(found.Proposals) == 1 && len(found.Remarks) >= 2 || wait > 5*time.Second {
			break
		}
	}
	if len(found.Proposals) != 1 || found.Proposals[0].Domain != "good.example" || !reflect.DeepEqual(found.Proposals[0].Sources, []Source{OnLAN}) || found.Proposals[0].Found.IsZero() {
		t.Errorf("%+v", found.Proposals)
	}
	for _, r := range found.Remarks {
		if strings.ContainsRune(r, 0x1b) {
			t.Errorf("%q", r)
		}
	}
	// The same without a name of our own.
	p := browse(t, l, "path.example").Proposals
	for _, p := range p {
		if p.Domain == "path.example" && (p.URL != "https://127.0.0.1:8703/peer" || p.Fingerprint != "") {
			t.Errorf("%+v", p)
		}
	}
}

func TestLANIsRefused(t *testing.T) {
	l := &LAN{Interface: "nothing0"}
	if _, err := l.Browse(t.Context()); fail.KindOf(err) != fail.Invalid || !strings.Contains(fail.Sentence(err), "ip link") {
		t.Error(err)
	}
	if err := l.Announce(t.Context(), Announcement{Domain: "a.example", Port: 1}); fail.KindOf(err) != fail.Invalid {
		t.Error(err)
	}
	for _, a := range []Announcement{
		{Port: 1},
		{Domain: "a b", Port: 1},
		{Domain: "a.example"},
		{Domain: "a.example", Port: 65536},
		{Domain: strings.Repeat("x", 250), Port: 1},
		{Domain: "a.example", Port: 1, Path: "peer"},
		{Domain: "a.example", Port: 1, Path: "//b/peer"},
		{Domain: "a.example", Port: 1, Version: "1 2"},
		{Domain: "a.example", Port: 1, Fingerprint: "SHA256:x"},
	} {
		if err := a.Validate(); fail.KindOf(err) != fail.Invalid {
			t.Errorf("%+v: %v", a, err)
		}
	}
}

const inNamespace = "PORTOLAN_TEST_NAMESPACE"

// TestLinkLocal browses one end of a cable and announces at the other, in a network
// namespace of its own: addresses of a link need their zone, which a loopback can't show.
func TestLinkLocal(t *testing.T) {
	if os.Getenv(inNamespace) == "" {
		if os.Geteuid() != 0 {
			t.Skip("only root can make a network namespace")
		}
		if _, err := exec.LookPath("ip"); err != nil {
			t.Skip("there is no ip command")
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLinkLocal$", "-test.v")
		cmd.Env = append(os.Environ(), inNamespace+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if strings.Contains(string(out), "--- SKIP") {
			t.Skipf("%s", out)
		}
		return
	}
	ip := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %s: %v: %s", strings.Join(args, " "), err, out)
		}
	}
	ip("link", "add", "here0", "type", "veth", "peer", "name", "there0")
	for i, dev := range []string{"here0", "there0"} {
		ip("link", "set", dev, "addrgenmode", "none")
		ip("link", "set", dev, "up")
		ip("addr", "add", fmt.Sprintf("fe80::%d/64", i+1), "dev", dev, "nodad")
	}
	announced(t, &LAN{Interface: "there0"}, Announcement{Domain: "there.example", Port: 8700})
	found := browse(t, &LAN{Interface: "here0"}, "there.example")
	if p := found.Proposals[0]; p.URL != "https://[fe80::2%25here0]:8700/peer" || p.Check() != nil {
		t.Errorf("%+v %v", p, p.Check())
	}
}
