package etcd

import (
	"crypto/tls"
	"log/slog"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/fail"
)

// Options says where the store is. Either Dir or Endpoints is required.
type Options struct {
	Dir       string      // data of the embedded etcd; made if it is not there
	Endpoints []string    // of an external cluster
	TLS       *tls.Config // for an external cluster
	Username  string      // for an external cluster
	Password  string
	Log       *slog.Logger
	// Domain is whose jobs, settings and records these are, in a cluster that several
	// gateways share: letters, digits and - . _, at most MaxDomain. "" has those of a
	// gateway without a name.
	Domain string

	QuotaBytes         int64         // of the embedded database; 0 is 8 GiB
	ReserveBytes       int64         // disk space that is to stay free; 0 is 48 MiB
	CompactionInterval time.Duration // of the embedded database; 0 is 10 minutes
	LeaseTTL           time.Duration // after which a silent replica loses its session; 0 is 10 s
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.QuotaBytes == 0 {
		o.QuotaBytes = 8 << 30
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 48 << 20
	}
	if o.CompactionInterval == 0 {
		o.CompactionInterval = 10 * time.Minute
	}
	if o.LeaseTTL == 0 {
		o.LeaseTTL = 10 * time.Second
	}
}

// minQuota leaves room for new jobs below what is kept for those that exist.
const minQuota = 64 << 20

// MaxDomain bounds the name of a domain, in bytes.
const MaxDomain = 63

// Validate reports what cannot be worked with.
func (o *Options) Validate() error {
	const op = "store.Open"
	odd := func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-._", r))
	}
	switch {
	case len(o.Domain) > MaxDomain || strings.ContainsFunc(o.Domain, odd):
		return fail.Errorf(op, fail.Invalid, "", "a domain's name has at most %d letters, digits and - . _; %q is none", MaxDomain, o.Domain)
	case o.Dir == "" && len(o.Endpoints) == 0:
		return fail.Errorf(op, fail.Invalid, "", "the store needs a data directory or the endpoints of an etcd cluster")
	case o.Dir != "" && len(o.Endpoints) > 0:
		return fail.Errorf(op, fail.Invalid, "", "the store takes a data directory or the endpoints of an etcd cluster, not both")
	case o.QuotaBytes < minQuota:
		return fail.Errorf(op, fail.Invalid, "", "the store's quota is %d bytes; it needs %d or more", o.QuotaBytes, minQuota)
	case o.ReserveBytes < 0:
		return fail.Errorf(op, fail.Invalid, "", "the disk space to keep free is %d bytes; it cannot be negative", o.ReserveBytes)
	case o.CompactionInterval < time.Second:
		return fail.Errorf(op, fail.Invalid, "", "the store's compaction interval is %v; it needs 1s or more", o.CompactionInterval)
	case o.LeaseTTL < 2*time.Second:
		return fail.Errorf(op, fail.Invalid, "", "the store's lease lasts %v; it needs 2s or more", o.LeaseTTL)
	}
	return nil
}
