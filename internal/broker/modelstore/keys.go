package modelstore

import (
	"fmt"
	"strconv"
	"strings"
	"time"

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

func siteOf(k resourcemodel.Key) string { return store.Segment(k.Domain) + "/" + store.Segment(k.Site) }

func partKey(k resourcemodel.Key, part string) string { return modelPrefix + siteOf(k) + "/" + part }

func baseKey(k resourcemodel.Key, part string) string { return basePrefix + siteOf(k) + "/" + part }

// splitKey gives the site and part of a key below a prefix.
func splitKey(key, prefix string) (k resourcemodel.Key, part string, ok bool) {
	rest, ok := strings.CutPrefix(key, prefix)
	segments := strings.Split(rest, "/")
	if !ok || len(segments) != 3 {
		return k, "", false
	}
	domain, ok1 := store.Text(segments[0])
	site, ok2 := store.Text(segments[1])
	return resourcemodel.Key{Domain: domain, Site: site}, segments[2], ok1 && ok2
}

// lineKey is where the history has a change, ordered by time.
func lineKey(at time.Time, k resourcemodel.Key) string { return linesAt(at) + "/" + siteOf(k) }

// linesAt begins the keys of what changed at a time.
func linesAt(at time.Time) string { return fmt.Sprintf("%s%020d", linePrefix, max(0, at.UnixNano())) }

func splitLine(key string) (at time.Time, k resourcemodel.Key, ok bool) {
	rest, ok := strings.CutPrefix(key, linePrefix)
	when, rest, found := strings.Cut(rest, "/")
	nanos, err := strconv.ParseInt(when, 10, 64)
	if !ok || !found || err != nil || len(when) != 20 {
		return at, k, false
	}
	k, _, ok = splitKey(rest+"/", "")
	return time.Unix(0, nanos).UTC(), k, ok
}
