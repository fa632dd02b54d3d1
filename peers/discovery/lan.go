package discovery

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/mdns"

	"github.com/portolan-project/portolan/internal/fail"
)

// LAN announces and browses by DNS-SD over multicast DNS (RFC 6762, 6763) on one
// interface.
type LAN struct {
	// Interface is its name, such as eth0. Nothing is sent on another.
	Interface string
	Log       *slog.Logger
}

const (
	lanDomain  = "local"
	maxEntries = 4 * MaxProposals // answers of one browse that are looked at
)

// open gives the interface, and which families of addresses it has.
func (l *LAN) open() (iface *net.Interface, v4, v6 bool, err error) {
	bad := func(kind fail.Kind, format string, args ...any) *fail.Error {
		return fail.Errorf("discovery.LAN", kind, l.Interface, format, args...)
	}
	if iface, err = net.InterfaceByName(l.Interface); err != nil {
		return nil, false, false, bad(fail.Invalid, "there is no interface %q here: name one that 'ip link' shows", l.Interface).Because(err)
	}
	ips, err := addresses(iface)
	if err != nil {
		return nil, false, false, bad(fail.Unavailable, "the addresses of the interface %s can't be read", l.Interface).Because(err)
	}
	for _, ip := range ips {
		if ip.Is4() {
			v4 = true
		} else {
			v6 = true
		}
	}
	if iface.Flags&net.FlagUp == 0 || !v4 && !v6 {
		return nil, false, false, bad(fail.Unavailable, "the interface %s is down or has no address", l.Interface)
	}
	return iface, v4, v6, nil
}

// addresses gives those of an interface that others can use.
func addresses(iface *net.Interface) ([]netip.Addr, error) {
	all, err := iface.Addrs()
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			out = append(out, p.Addr().Unmap())
		}
	}
	return out, nil
}

func (l *LAN) log() *slog.Logger {
	if l.Log == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l.Log
}

// Browse asks who is there and gathers answers until the context's deadline, for 3 s where
// it has none. It does not return earlier, as answers come at their leisure.
func (l *LAN) Browse(ctx context.Context) (*Found, error) {
	iface, v4, v6, err := l.open()
	if err != nil {
		return nil, err
	}
	wait := usualWait
	if by, ok := ctx.Deadline(); ok {
		wait = max(min(time.Until(by), MaxWait), time.Millisecond)
	}
	// Each family by itself: where one has no route the other may have answers.
	var families []*mdns.QueryParam
	for _, f := range []struct{ has, no4, no6 bool }{{v4, false, true}, {v6, true, false}} {
		if f.has {
			families = append(families, &mdns.QueryParam{
				Service: Service, Domain: lanDomain, Timeout: wait, Interface: iface,
				DisableIPv4: f.no4, DisableIPv6: f.no6, Logger: slog.NewLogLogger(l.log().Handler(), slog.LevelDebug),
			})
		}
	}
	// An entry is written to after it was given, so all are looked at when nobody writes
	// any more. Those that the channel has no room for are dropped.
	entries := make([]chan *mdns.ServiceEntry, len(families))
	problems := make([]error, len(families))
	var wg sync.WaitGroup
	for i, q := range families {
		entries[i] = make(chan *mdns.ServiceEntry, maxEntries)
		q.Entries = entries[i]
		wg.Go(func() { problems[i] = mdns.QueryContext(ctx, q) })
	}
	wg.Wait()
	if !slices.Contains(problems, nil) {
		return nil, fail.Errorf("discovery.LAN", fail.Unavailable, l.Interface, "nothing could be asked on the interface %s: it must do multicast, and the machine have a route for it", l.Interface).Because(errors.Join(problems...))
	}
	out := &Found{}
	for _, c := range entries {
		if len(c) == maxEntries {
			out.Remarks = append(out.Remarks, fmt.Sprintf("more than %d answered on the LAN; the rest is left out", maxEntries))
		}
		for len(c) > 0 {
			e := <-c
			if !strings.HasSuffix(strings.ToLower(e.Name), "."+Service+"."+lanDomain+".") {
				continue // a printer
			}
			p, remark := proposed(e)
			if remark != "" {
				out.Remarks = append(out.Remarks, remark)
			}
			if p != nil {
				out.Proposals = append(out.Proposals, *p)
			}
		}
	}
	return out, nil
}

// proposed reads one entry.
func proposed(e *mdns.ServiceEntry) (*Proposal, string) {
	a, remark := readTexts(e.InfoFields)
	if remark != "" {
		remark = "a TXT record on the LAN: " + remark
	}
	at, ok := addressOf(e)
	if !ok || a.domain == "" || e.Port < 1 || e.Port > 65535 {
		if remark == "" {
			remark = "something on the LAN calls itself a peer and names no domain, address or port"
		}
		return nil, remark
	}
	p := a.proposal(netip.AddrPortFrom(at, uint16(e.Port)).String())
	p.URL = strings.Replace(p.URL, "%", "%25", 1) // of a zone: RFC 6874
	return &p, remark
}

func addressOf(e *mdns.ServiceEntry) (netip.Addr, bool) {
	if ip, ok := netip.AddrFromSlice(e.AddrV4); ok {
		return ip.Unmap(), usable(ip.Unmap())
	}
	if e.AddrV6IPAddr == nil {
		return netip.Addr{}, false
	}
	ip, ok := netip.AddrFromSlice(e.AddrV6IPAddr.IP)
	if !ok {
		return ip, false
	}
	if z := e.AddrV6IPAddr.Zone; z != "" && printable(z) && !strings.ContainsAny(z, "/%]") {
		ip = ip.WithZone(z)
	}
	return ip, usable(ip)
}

func usable(ip netip.Addr) bool { return ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() }
