package wire

import (
	"time"

	"github.com/portolan-project/portolan/resourcemodel"
)

// Bounds of the resources.
const (
	MaxChanges = 1000 // in one Resources
	MaxBuckets = 4096
	MaxQuotas  = 1000
	MaxStale   = 1000
	HashBytes  = 8 // of a bucket's digest
)

// Pull asks for the other side's resources.
type Pull struct {
	View     string
	Revision uint64
	Detail   Detail
}

func (m *Pull) visit(v *visit) {
	str(v, "view", &m.View, 0, MaxID, word, "the view of which the sender has a state; absent: it has none and wants all")
	num(v, "revision", &m.Revision, 0, MaxSeq, "the revision of that state; 0 wants all")
	enum(v, "detail", &m.Detail, false, "the finest detail that the sender has use for; the exporter shows it no finer", Full, Categorized, Simple, None)
	v.check((m.View == "") == (m.Revision == 0), "@revision", "must be there with view, and only then")
}

// SiteChange is what changed of a site.
type SiteChange struct {
	Site      string
	Gone      bool
	Confirmed time.Time
	Static    string
	Dynamic   string
}

func changeFields(v *visit, c *SiteChange) {
	str(v, "site", &c.Site, 1, resourcemodel.MaxName, line, "name of the site in the exporter's domain")
	yes(v, "gone", &c.Gone, "the site is no longer shown; with parts: they are all that there is of it")
	when(v, "confirmed", &c.Confirmed, false, "when the site's source last gave a sign of life: the age of its values")
	text(v, "Static", &c.Static, 0, resourcemodel.MaxRecord, "the part that seldom changes: the record of docs/resource-model.md in its canonical form; it tells version, time of change, source and detail. Absent: as it was")
	text(v, "Dynamic", &c.Dynamic, 0, resourcemodel.MaxRecord, "the part that changes all the time, likewise")
	v.check(c.Gone || c.Static != "" || c.Dynamic != "", "Static", "is missing, and so is Dynamic: the change changes nothing")
}

// Resources are changes from one revision of a view to another.
type Resources struct {
	View    string
	From    uint64
	To      uint64
	More    bool
	Detail  Detail
	Buckets int
	Repairs []byte
	Changes []SiteChange
}

func (m *Resources) visit(v *visit) {
	str(v, "view", &m.View, 1, MaxID, word, "the exporter's numbering of revisions; a new one means that what was had before does not count")
	num(v, "from", &m.From, 0, MaxSeq, "the revision that this is added to; 0: all that was had before is dropped, and what follows is all there is")
	num(v, "to", &m.To, 1, MaxSeq, "the revision that is had after this")
	yes(v, "more", &m.More, "the revision is not whole yet: further Resources from the same to the same revision follow")
	enum(v, "detail", &m.Detail, true, "the detail of the view", Full, Categorized, Simple, None)
	num(v, "buckets", &m.Buckets, 0, MaxBuckets, "of a repair: the number of buckets that Repairs counts by, a power of two")
	data(v, "Repairs", &m.Repairs, 0, MaxBuckets/8, "of a repair: a bit for each bucket, the first the highest bit of the first byte; sites in buckets whose bit is set are gone unless they are among the changes")
	list(v, "Change", &m.Changes, 0, MaxChanges, changeFields, "a site that changed; each at most once")
	v.check(m.From <= m.To, "@from", "is above to")
	v.check(validBuckets(m.Buckets) && len(m.Repairs) == (m.Buckets+7)/8, "@buckets", "must be 0 or a power of two, with as many bits in Repairs")
	v.check(m.Buckets == 0 || m.From == m.To, "@from", "must be to in a repair")
}

func validBuckets(n int) bool { return n == 0 || n > 0 && n&(n-1) == 0 }

// Stale is a site that was not confirmed lately.
type Stale struct {
	Site      string
	Confirmed time.Time
}

func staleFields(v *visit, s *Stale) {
	str(v, "site", &s.Site, 1, resourcemodel.MaxName, line, "name of the site")
	when(v, "confirmed", &s.Confirmed, true, "when its source last gave a sign of life")
}

// Digests say what the importer must have once it is done with what came before.
type Digests struct {
	View      string
	Revision  uint64
	Sites     int
	Confirmed time.Time
	Static    []byte
	Dynamic   []byte
	Stale     []Stale
}

func (m *Digests) visit(v *visit) {
	str(v, "view", &m.View, 1, MaxID, word, "as in Resources")
	num(v, "revision", &m.Revision, 1, MaxSeq, "of which the digests are")
	num(v, "sites", &m.Sites, 0, MaxSeq, "number of sites")
	when(v, "confirmed", &m.Confirmed, false, "all sites but those named in Stale were confirmed by their sources since then")
	data(v, "StaticDigest", &m.Static, 32, 32, "digest of the category of what seldom changes")
	data(v, "DynamicDigest", &m.Dynamic, 32, 32, "digest of the category of what changes all the time")
	list(v, "Stale", &m.Stale, 0, MaxStale, staleFields, "a site that was not confirmed since")
}

// Compare tells where the importer's state differs from the digests: by buckets.
type Compare struct {
	View     string
	Revision uint64
	Buckets  int
	Static   []byte
	Dynamic  []byte
}

func (m *Compare) visit(v *visit) {
	str(v, "view", &m.View, 1, MaxID, word, "as in Digests")
	num(v, "revision", &m.Revision, 1, MaxSeq, "as in Digests")
	num(v, "buckets", &m.Buckets, 1, MaxBuckets, "number of buckets, a power of two: the lowest that is not below an eighth of the importer's sites, within the bounds")
	data(v, "StaticBuckets", &m.Static, 0, MaxBuckets*HashBytes, "eight bytes for each bucket, of the importer's state; absent: the category agrees")
	data(v, "DynamicBuckets", &m.Dynamic, 0, MaxBuckets*HashBytes, "likewise")
	v.check(validBuckets(m.Buckets), "@buckets", "must be a power of two")
	for _, b := range [][]byte{m.Static, m.Dynamic} {
		v.check(len(b) == 0 || len(b) == m.Buckets*HashBytes, "@buckets", "must agree with the length of what is compared: %d bytes a bucket", HashBytes)
	}
}

// Quota is what a VO may use and uses, in the exporter's domain.
type Quota struct {
	VO       string
	MaxJobs  uint64
	Jobs     uint64
	MaxCPUs  uint64
	CPUs     uint64
	Measured time.Time
}

func quotaFields(v *visit, q *Quota) {
	str(v, "vo", &q.VO, 0, MaxID, line, "the VO; absent: all that the importer sends")
	num(v, "maxJobs", &q.MaxJobs, 0, MaxSeq, "jobs that may be taken at once; 0 is no limit")
	num(v, "jobs", &q.Jobs, 0, MaxSeq, "jobs that are taken")
	num(v, "maxCPUs", &q.MaxCPUs, 0, MaxSeq, "CPUs that may be used at once; 0 is no limit")
	num(v, "cpus", &q.CPUs, 0, MaxSeq, "CPUs that are used, where maxCPUs bounds them")
	when(v, "measured", &q.Measured, true, "when this was so")
}

// Quotas are all quotas of the receiver's VOs; they replace those of before.
type Quotas struct{ List []Quota }

func (m *Quotas) visit(v *visit) {
	list(v, "Quota", &m.List, 0, MaxQuotas, quotaFields, "one VO's quota and use")
}
