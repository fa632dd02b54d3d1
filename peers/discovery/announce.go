package discovery

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/mdns"
	"github.com/miekg/dns"

	"github.com/portolan-project/portolan/internal/fail"
)

// Announcement is what a gateway tells on the LAN.
type Announcement struct {
	Domain      string
	Port        int
	Path        string // of the endpoint; /peer if ""
	Version     string
	Fingerprint string
	Plain       bool // without TLS
}

// Validate gives fail.Invalid for what can't be announced.
func (a Announcement) Validate() error {
	bad := func(format string, args ...any) error {
		return fail.Errorf("discovery.Announce", fail.Invalid, a.Domain, format, args...)
	}
	if err := CheckDomain(a.Domain); err != nil {
		return err
	}
	if a.Port < 1 || a.Port > 65535 {
		return bad("the port must be 1 to 65535")
	}
	for _, t := range a.records().texts() {
		if len(t) > maxText {
			return bad("%s… is too long to be announced: with its name it has %d bytes, and a TXT record takes %d", t[:16], len(t), maxText)
		}
	}
	read, remark := readTexts(a.records().texts())
	if want := a.records(); remark != "" || read != want {
		return bad("nobody could read the announcement: %s", remark)
	}
	return nil
}

func (a Announcement) records() announcement {
	if a.Path == "" {
		a.Path = defaultPath
	}
	return announcement{domain: a.Domain, path: a.Path, version: a.Version, fingerprint: a.Fingerprint, plain: a.Plain}
}

// maxLabel bounds a part of a name: RFC 1035 §2.3.4.
const maxLabel = 63

// instance gives the name of the service's instance, one label, and the name of the host.
// Neither depends on the machine's own name, which is nobody's business.
func (a Announcement) instance() (instance, host string) {
	sum := sha256.Sum256([]byte(strings.ToLower(a.Domain)))
	short := hex.EncodeToString(sum[:6])
	label := a.Domain
	if len(label) > maxLabel {
		label = label[:maxLabel-len(short)-1] + "-" + short
	}
	// In the form for people, what would end a label or be an escape has a backslash
	// before it (RFC 1035 §5.1).
	var b strings.Builder
	for _, c := range []byte(label) {
		if strings.IndexByte(`.\ "();@$'`, c) >= 0 {
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
	return b.String(), "portolan-" + short + "." + lanDomain + "."
}

// Announce answers those who browse the LAN, until the context ends.
func (l *LAN) Announce(ctx context.Context, a Announcement) error {
	if err := a.Validate(); err != nil {
		return err
	}
	iface, _, _, err := l.open()
	if err != nil {
		return err
	}
	z := &zone{iface: iface, a: a}
	if _, err := z.service(time.Now()); err != nil {
		return err
	}
	s, err := mdns.NewServer(&mdns.Config{Zone: z, Iface: iface, Logger: slog.NewLogLogger(l.log().Handler(), slog.LevelDebug)})
	if err != nil {
		return fail.Errorf("discovery.Announce", fail.Unavailable, l.Interface, "the interface %s can't be listened on for multicast DNS", l.Interface).Because(err)
	}
	<-ctx.Done()
	_ = s.Shutdown() // it closes what is closed then
	return nil
}

// zone answers questions with the addresses that the interface has at the moment.
type zone struct {
	iface *net.Interface
	a     Announcement

	mu   sync.Mutex
	made time.Time
	last *mdns.MDNSService
}

// fresh is how long the addresses of an interface are believed.
const fresh = 10 * time.Second

// Records answers a question.
func (z *zone) Records(q dns.Question) []dns.RR {
	s, err := z.service(time.Now())
	if err != nil {
		return nil // the interface is down, and nobody hears us
	}
	return s.Records(q)
}

func (z *zone) service(now time.Time) (*mdns.MDNSService, error) {
	z.mu.Lock()
	defer z.mu.Unlock()
	if age := now.Sub(z.made); z.last != nil && age >= 0 && age < fresh {
		return z.last, nil
	}
	all, err := addresses(z.iface)
	if err != nil || len(all) == 0 {
		return nil, fail.Errorf("discovery.Announce", fail.Unavailable, z.iface.Name, "the interface %s has no address", z.iface.Name).Because(err)
	}
	ips := make([]net.IP, len(all))
	for i, ip := range all {
		ips[i] = ip.AsSlice()
	}
	instance, host := z.a.instance()
	s, err := mdns.NewMDNSService(instance, Service, lanDomain+".", host, z.a.Port, ips, z.a.records().texts())
	if err != nil {
		return nil, fail.Errorf("discovery.Announce", fail.Internal, z.a.Domain, "the announcement could not be made").Because(err)
	}
	z.last, z.made = s, now
	return s, nil
}
