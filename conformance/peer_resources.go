package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/portolan-project/portolan/peers/wire"
	"github.com/portolan-project/portolan/resourcemodel"
)

var peerResourceChecks = []check{
	{"PEER-RES-1", chapter("Resources 1 and 2"), "a Pull without a view gets all, from 0, in parts that end", pulled},
	{"PEER-RES-2", chapter("Resources (view)"), "the records are those of the resource model, in their canonical form", canonical},
	{"PEER-RES-3", chapter("Resources 4; Digests"), "after a pull digests are sent, and they are those of what was sent", digested},
	{"PEER-RES-4", chapter("Resources 2"), "a Pull with the state that there is gets what changed since, and not all", incremental},
	{"PEER-RES-5", chapter("Resources 2"), "a Pull with a view that there is not gets the digests of one that there is", otherView},
	{"PEER-RES-6", chapter("Resources 5; Repairs"), "a Compare that differs everywhere gets all sites, and digests again", repaired(false)},
	{"PEER-RES-7", chapter("Resources 5; Repairs"), "a Compare that differs in one bucket gets its sites alone", repaired(true)},
	{"PEER-RES-8", chapter("Resources 5; Compare (absent: the category agrees)"), "a Compare that differs in one category gets that part alone", repairedPart},
	{"PEER-RES-9", chapter("Pull (detail)"), "it is shown no finer than asked for, and no finer than it said", coarser},
}

// view is what the kit, as importer, has of the endpoint.
type view struct {
	name     string
	revision uint64
	detail   wire.Detail
	sites    map[string]*wire.SiteChange
}

// pull asks for the view, and waits for all of it and its digests.
func (v *visit) pull(ctx context.Context, q *wire.Pull) (*view, *wire.Digests, error) {
	mark := v.mark()
	if _, err := v.give(ctx, q); err != nil {
		return nil, nil, err
	}
	last, err := await(ctx, v, mark, "Resources from 0 without more", func(r *wire.Resources) bool { return r.From == 0 && !r.More })
	if err != nil {
		return nil, nil, err
	}
	x := &view{name: last.View, revision: last.To, detail: last.Detail, sites: map[string]*wire.SiteChange{}}
	for _, m := range v.since(mark) {
		r, ok := m.(*wire.Resources)
		if !ok {
			continue
		}
		if r.From != 0 || r.View != last.View || r.To != last.To || r.Buckets != 0 {
			if r == last {
				break
			}
			return nil, nil, fmt.Errorf("between the parts of revision %d of %s came Resources from %d to %d of %s", last.To, last.View, r.From, r.To, r.View)
		}
		for i := range r.Changes {
			if x.sites[r.Changes[i].Site] != nil {
				return nil, nil, fmt.Errorf("the site %s is there twice", r.Changes[i].Site)
			}
			x.sites[r.Changes[i].Site] = &r.Changes[i]
		}
		if r == last {
			break
		}
	}
	if !slices.Contains(v.opened.Features, wire.FeatureDigests) {
		return x, nil, nil
	}
	d, err := await(ctx, v, mark, "Digests", func(*wire.Digests) bool { return true })
	return x, d, err
}

// leafOf is the digest of a site's part: docs/peer-protocol.md, Digests.
func leafOf(site, record string) (d [32]byte) {
	h := sha256.New()
	for _, s := range []string{site, record} {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(s))))
		h.Write([]byte(s))
	}
	h.Sum(d[:0])
	return d
}

func (x *view) roots() (static, dynamic [32]byte) {
	for _, c := range x.sites {
		for _, part := range []struct {
			record string
			into   *[32]byte
		}{{c.Static, &static}, {c.Dynamic, &dynamic}} {
			if part.record != "" {
				l := leafOf(c.Site, part.record)
				for i := range l {
					part.into[i] ^= l[i]
				}
			}
		}
	}
	return static, dynamic
}

// bucketAt gives a site's bucket of 2^k.
func bucketAt(site string, n int) int {
	sum := sha256.Sum256([]byte(site))
	i := 0
	for k := 1; k < n; k *= 2 {
		i = 2*i + int(sum[bits(k)/8]>>(7-bits(k)%8)&1)
	}
	return i
}

// bits gives k of 2^k.
func bits(k int) int {
	n := 0
	for ; k > 1; k /= 2 {
		n++
	}
	return n
}

// bucketsOf gives the digests by bucket of a category.
func (x *view) bucketsOf(n int, record func(*wire.SiteChange) string) []byte {
	out := make([]byte, n*wire.HashBytes)
	for _, c := range x.sites {
		if r := record(c); r != "" {
			l, at := leafOf(c.Site, r), bucketAt(c.Site, n)*wire.HashBytes
			for i := range wire.HashBytes {
				out[at+i] ^= l[i]
			}
		}
	}
	return out
}

func staticOf(c *wire.SiteChange) string  { return c.Static }
func dynamicOf(c *wire.SiteChange) string { return c.Dynamic }

// number of buckets for so many sites.
func bucketsFor(sites int) int {
	n := 16
	for n < 4096 && n*8 < sites {
		n *= 2
	}
	return n
}

func pulled(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	x, _, err := v.pull(ctx, &wire.Pull{})
	if err != nil {
		return "", err
	}
	if x.detail == wire.None && len(x.sites) > 0 {
		return "", fmt.Errorf("the detail is none, and %d sites are shown", len(x.sites))
	}
	for name, c := range x.sites {
		if c.Static == "" {
			return "", fmt.Errorf("all is sent anew, and the site %s has no static part", name)
		}
	}
	return fmt.Sprintf("revision %d of %s, %d sites, detail %s", x.revision, x.name, len(x.sites), x.detail), nil
}

// shownSites pulls, and skips what needs sites where there are none.
func (p *probe) shownSites(ctx context.Context) (*visit, *view, *wire.Digests, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return nil, nil, nil, err
	}
	x, d, err := v.pull(ctx, &wire.Pull{})
	if err == nil && len(x.sites) == 0 {
		err = skip("the endpoint shows no sites to the kit's domain (detail %s)", x.detail)
	}
	return v, x, d, err
}

func canonical(ctx context.Context, p *probe) (string, error) {
	_, x, _, err := p.shownSites(ctx)
	if err != nil {
		return "", err
	}
	for name, c := range x.sites {
		for part, f := range map[string]func() ([]byte, error){
			"static": func() ([]byte, error) {
				s, err := resourcemodel.DecodeStatic([]byte(c.Static))
				if err != nil {
					return nil, err
				}
				return s.Encode()
			},
			"dynamic": func() ([]byte, error) {
				if c.Dynamic == "" {
					return nil, nil
				}
				d, err := resourcemodel.DecodeDynamic([]byte(c.Dynamic))
				if err != nil {
					return nil, err
				}
				return d.Encode()
			},
		} {
			again, err := f()
			if err != nil {
				return "", fmt.Errorf("the %s part of %s is no record: %w", part, name, err)
			}
			if want := map[string]string{"static": c.Static, "dynamic": c.Dynamic}[part]; string(again) != want {
				return "", fmt.Errorf("the %s part of %s is not in its canonical form", part, name)
			}
		}
	}
	return fmt.Sprintf("%d sites", len(x.sites)), nil
}

// hasDigests skips what the endpoint did not agree to.
func (v *visit) hasDigests() error {
	if !slices.Contains(v.opened.Features, wire.FeatureDigests) {
		return skip("the endpoint does not know the feature %s", wire.FeatureDigests)
	}
	return nil
}

func digested(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.hasDigests(); err != nil {
		return "", err
	}
	x, d, err := v.pull(ctx, &wire.Pull{})
	if err != nil {
		return "", err
	}
	if d.View != x.name {
		return "", fmt.Errorf("the digests are of the view %s: wanted %s", d.View, x.name)
	}
	if d.Revision != x.revision {
		return "", skip("the view changed meanwhile, from revision %d to %d", x.revision, d.Revision)
	}
	static, dynamic := x.roots()
	if d.Sites != len(x.sites) || !bytes.Equal(d.Static, static[:]) || !bytes.Equal(d.Dynamic, dynamic[:]) {
		return "", fmt.Errorf("the digests of %d sites are %x and %x; those of the %d that were sent are %x and %x", d.Sites, d.Static, d.Dynamic, len(x.sites), static, dynamic)
	}
	return fmt.Sprintf("of revision %d, %d sites", d.Revision, d.Sites), nil
}

func incremental(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.hasDigests(); err != nil {
		return "", err
	}
	x, _, err := v.pull(ctx, &wire.Pull{})
	if err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Pull{View: x.name, Revision: x.revision}); err != nil {
		return "", err
	}
	d, err := await(ctx, v, mark, "Digests", func(d *wire.Digests) bool { return d.View == x.name })
	if err != nil {
		return "", err
	}
	at := x.revision
	for _, m := range v.since(mark) {
		if r, ok := m.(*wire.Resources); ok {
			if r.From == 0 {
				return "", fmt.Errorf("the kit has revision %d of %s, and all was sent again", x.revision, x.name)
			}
			if r.From != at {
				return "", fmt.Errorf("the kit has revision %d, and Resources came from %d to %d", at, r.From, r.To)
			}
			if !r.More {
				at = r.To
			}
		}
		if m == wire.Message(d) {
			break
		}
	}
	if d.Revision != at {
		return "", fmt.Errorf("the kit was brought to revision %d, and the digests are of %d", at, d.Revision)
	}
	return fmt.Sprintf("from revision %d to %d", x.revision, at), nil
}

func otherView(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	if err := v.hasDigests(); err != nil {
		return "", err
	}
	mark := v.mark()
	if _, err := v.give(ctx, &wire.Pull{View: "urn:nobody:has:this", Revision: 7}); err != nil {
		return "", err
	}
	d, err := await(ctx, v, mark, "Digests", func(*wire.Digests) bool { return true })
	if err != nil {
		return "", err
	}
	if d.View == "urn:nobody:has:this" {
		return "", errors.New("the digests are of a view that the kit made up")
	}
	return fmt.Sprintf("of revision %d of %s", d.Revision, d.View), nil
}

// repaired sends digests by buckets that are wrong, in all or in one, and looks at what comes.
func repaired(one bool) probeFunc {
	return func(ctx context.Context, p *probe) (string, error) {
		v, x, d, err := p.shownSites(ctx)
		if err != nil {
			return "", err
		}
		if err := v.hasDigests(); err != nil {
			return "", err
		}
		n := bucketsFor(len(x.sites))
		q := &wire.Compare{View: d.View, Revision: d.Revision, Buckets: n, Static: x.bucketsOf(n, staticOf), Dynamic: x.bucketsOf(n, dynamicOf)}
		wrong := map[int]bool{}
		for name := range x.sites {
			if b := bucketAt(name, n); !one || len(wrong) == 0 || wrong[b] {
				wrong[b] = true
			}
		}
		for b := range wrong {
			q.Static[b*wire.HashBytes] ^= 0xff
			q.Dynamic[b*wire.HashBytes] ^= 0xff
		}
		return v.compared(ctx, q, x, wrong, true, true)
	}
}

func repairedPart(ctx context.Context, p *probe) (string, error) {
	v, x, d, err := p.shownSites(ctx)
	if err != nil {
		return "", err
	}
	if err := v.hasDigests(); err != nil {
		return "", err
	}
	n := bucketsFor(len(x.sites))
	q := &wire.Compare{View: d.View, Revision: d.Revision, Buckets: n, Static: x.bucketsOf(n, staticOf)}
	wrong := map[int]bool{}
	for name := range x.sites {
		b := bucketAt(name, n)
		if !wrong[b] {
			q.Static[b*wire.HashBytes] ^= 0xff
		}
		wrong[b] = true
	}
	return v.compared(ctx, q, x, wrong, true, false)
}

// compared sends a Compare and holds the repair to what is wrong in it.
func (v *visit) compared(ctx context.Context, q *wire.Compare, x *view, wrong map[int]bool, static, dynamic bool) (string, error) {
	mark := v.mark()
	if _, err := v.give(ctx, q); err != nil {
		return "", err
	}
	last, err := await(ctx, v, mark, "repair", func(r *wire.Resources) bool { return r.Buckets > 0 && !r.More })
	if err != nil {
		return "", err
	}
	sites := map[string]bool{}
	for _, m := range v.since(mark) {
		r, ok := m.(*wire.Resources)
		if !ok || r.Buckets == 0 {
			continue
		}
		if r.Buckets != q.Buckets || r.View != q.View || r.From != r.To {
			return "", fmt.Errorf("the repair is by %d buckets, of revisions %d to %d of %s: wanted %d buckets and %s", r.Buckets, r.From, r.To, r.View, q.Buckets, q.View)
		}
		for b := range q.Buckets {
			if said := r.Repairs[b/8]&(0x80>>(b%8)) != 0; said != wrong[b] && r.To == q.Revision {
				return "", fmt.Errorf("the repair says of bucket %d that it differs: %v, and it does: %v", b, said, wrong[b])
			}
		}
		for _, c := range r.Changes {
			sites[c.Site] = true
			if was := x.sites[c.Site]; was != nil && r.To == q.Revision {
				if static != (c.Static != "") || dynamic && was.Dynamic != "" != (c.Dynamic != "") || !dynamic && c.Dynamic != "" {
					return "", fmt.Errorf("the repair of %s has the static part: %v, and the dynamic one: %v", c.Site, c.Static != "", c.Dynamic != "")
				}
				if c.Gone != (static && dynamic) {
					return "", fmt.Errorf("the repair of %s has gone=%v: both categories differ, %v", c.Site, c.Gone, static && dynamic)
				}
			}
		}
		if r == last {
			break
		}
	}
	if last.To == q.Revision {
		for name := range x.sites {
			if is := wrong[bucketAt(name, q.Buckets)]; is != sites[name] {
				return "", fmt.Errorf("the site %s is in the repair: %v; its bucket differs: %v", name, sites[name], is)
			}
		}
	}
	if _, err := await(ctx, v, mark, "Digests after the repair", func(d *wire.Digests) bool { return d.View == q.View }); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d buckets of %d, %d sites of %d", len(wrong), q.Buckets, len(sites), len(x.sites)), nil
}

func coarser(ctx context.Context, p *probe) (string, error) {
	v, err := p.standing(ctx)
	if err != nil {
		return "", err
	}
	order := []wire.Detail{wire.Full, wire.Categorized, wire.Simple, wire.None}
	x, _, err := v.pull(ctx, &wire.Pull{Detail: wire.Simple})
	if err != nil {
		return "", err
	}
	if slices.Index(order, x.detail) < slices.Index(order, wire.Simple) {
		return "", fmt.Errorf("the detail simple was asked for, and the view is %s", x.detail)
	}
	p.visit = nil // whoever comes next wants all
	return string(x.detail), nil
}
