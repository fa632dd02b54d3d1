package modelstore

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/resourcemodel"
)

const (
	modelPrefix   = "model/"
	historyPrefix = "modelhistory/"
	linePrefix    = historyPrefix + "d/"
	basePrefix    = historyPrefix + "b/"
	markKey       = historyPrefix + "at"
)

// The last segments of a site's records.
const (
	staticPart  = "static"
	dynamicPart = "dynamic"
	feederPart  = "feeder"
)

// Nameless is what the domain of a gateway without a name is called where another has to.
const Nameless = "local"

// names says how the domains are called here and in the store: our own is "" here, and
// there what it is called.
type names struct{ own string }

func (n names) siteOf(k resourcemodel.Key) string {
	domain := k.Domain
	switch {
	case domain == "":
		domain = n.own
	case domain == Nameless && n.own != "":
		domain = ""
	}
	return store.Segment(domain) + "/" + store.Segment(k.Site)
}

func (n names) partKey(k resourcemodel.Key, part string) string {
	return modelPrefix + n.siteOf(k) + "/" + part
}

func (n names) baseKey(k resourcemodel.Key, part string) string {
	return basePrefix + n.siteOf(k) + "/" + part
}

// splitKey gives the site and part of a key below a prefix.
func (n names) splitKey(key, prefix string) (k resourcemodel.Key, part string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	segments := strings.Split(rest, "/")
	if !ok || len(segments) != 3 {
		return k, "", false
	}
	domain, ok1 := store.Text(segments[0])
	site, ok2 := store.Text(segments[1])
	switch {
	case n.own == "":
	case domain == n.own:
		domain = ""
	case domain == "":
		domain = Nameless
	case domain == Nameless: // no gateway is called so
		ok1 = false
	}
	return resourcemodel.Key{Domain: domain, Site: site}, segments[2], ok1 && ok2
}

// check refuses names by which a site can't be fed.
func (n names) check(k resourcemodel.Key) error {
	if err := k.Check(); err != nil {
		return err
	}
	if k.Domain != "" && (k.Domain == n.own || k.Domain == Nameless) {
		return fail.Errorf("modelstore.Feed", fail.Invalid, k.String(), "a site of the domain %s can't be fed under that name: it is our own, or that of a gateway without a name", k.Domain)
	}
	return nil
}

// lineKey is where the history has a change, ordered by time.
func (n names) lineKey(at time.Time, k resourcemodel.Key) string {
	return linesAt(at) + "/" + n.siteOf(k)
}

// linesAt begins the keys of what changed at a time.
func linesAt(at time.Time) string { return fmt.Sprintf("%s%020d", linePrefix, max(0, at.UnixNano())) }

func (n names) splitLine(key string) (at time.Time, k resourcemodel.Key, ok bool) {
	rest, ok := strings.CutPrefix(key, linePrefix)
	when, rest, found := strings.Cut(rest, "/")
	nanos, err := strconv.ParseInt(when, 10, 64)
	if !ok || !found || err != nil || len(when) != 20 {
		return at, k, false
	}
	k, _, ok = n.splitKey(rest+"/", "")
	return time.Unix(0, nanos).UTC(), k, ok
}
