package broker

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/broker/modelstore"
	"github.com/portolan-project/portolan/internal/broker/schedule"
	"github.com/portolan-project/portolan/internal/soap"
	"github.com/portolan-project/portolan/internal/store"
	"github.com/portolan-project/portolan/jsdl"
)

// Site is one place where jobs run.
type Site struct {
	Name    string // unique; a CandidateHost of this name pins a job to it
	Adapter adapters.Adapter
	// Accounts gives the local account of a principal's jobs, AccountDefault that
	// of everybody else's; "" is the account that the site is configured with.
	Accounts       map[string]string
	AccountDefault string
	// Model says more of the site than its manager tells.
	Model SiteModel
	// Fencing makes sure that the site runs nothing any more, once it has not answered for long.
	Fencing Fencing
}

// Permission is something that a principal may be allowed to do.
type Permission string

// The permissions.
const (
	Submit  Permission = "submit"  // create activities, and see and steer one's own
	Manage  Permission = "manage"  // stop and start the taking of new activities
	Oversee Permission = "oversee" // see and steer everybody's activities
)

// Config says what a Broker works with. Store, Sites and BaseURL are required;
// the zero value of everything else works.
type Config struct {
	Store   store.Store
	Replica string // names this process across restarts; default "gateway"
	Sites   []Site // at most 512
	// BaseURL gives the external address of the BES endpoint; it is asked for each
	// reference, as the address may be known only once the listener is up.
	BaseURL func() string
	// Authorise gives nil when the principal may; its error goes to the caller as
	// fail.Denied. Nil lets everybody Submit and Manage, and nobody Oversee.
	Authorise func(soap.Principal, Permission) error
	Log       *slog.Logger

	CommonName      string
	LongDescription string
	// JSDL says how documents are read that come without having been read.
	JSDL jsdl.Options
	// Alone says that no other process writes to the store, so that it need not
	// be watched.
	Alone bool

	// AwaitRoom has nothing placed before KeepRoom told which room is promised: else jobs could get
	// it in the moments after a start.
	AwaitRoom bool

	Limits Limits
	Retry  Retry
	Hooks  Hooks
	// Member gives nil when the principal may act for the VO that a document names; its
	// error goes to the caller as fail.Denied. Nil believes everybody.
	Member func(who soap.Principal, vo string) error
	// Domain is what this gateway speaks for, where it shares the resource model with
	// gateways of other domains; "" is one without a name.
	Domain string
	// Shared has the records of the resource model, in a store whose other records are of
	// this domain alone; nil has them in Store.
	Shared store.Records
	// Model is the resource model that the replicas share; whoever gives it runs it. Nil has
	// the Broker open and run one.
	Model *modelstore.Model
	// Catalogue makes the policies; nil has those that are built in.
	Catalogue *schedule.Catalogue
	// Bounds are of the jobs that owners and VOs have at sites at once; zero is none.
	Bounds schedule.Limits
	// Shares says what VOs and users are entitled to under fair share, "vo:bio" to 2 for
	// twice the usual.
	Shares map[string]float64
	// Seed is where the chance of the policies that pair jobs with places begins.
	Seed uint64
	// Flapping says when a site that comes and goes is kept out for a while.
	Flapping Flapping
	// Retention is how long a site keeps the output of a job that ended; default
	// 30 days, negative for ever.
	Retention time.Duration
	// PollInterval is how often a site that can't push evidence is asked, for all
	// of its jobs at once; default 2 s.
	PollInterval time.Duration
	// AuditInterval is how often every site is asked about all of its jobs, in
	// case pushed evidence was missed, and about its capacity; default 30 s. A site
	// that answers nothing for twice as long is given no jobs until it does.
	AuditInterval time.Duration
	// ToldInterval is how seldom the progress of a job is written down while
	// nothing else happens to it; default 10 s.
	ToldInterval time.Duration
	// Jitter gives numbers in [0,1) that spread retries; default random.
	Jitter func() float64
}

// Limits bound what a Broker takes on. Zero means the default.
type Limits struct {
	Live         int           // jobs that are not final; default 1 000 000
	LivePerOwner int           // the same of one owner; default 100 000
	Document     int           // bytes; default 1 MiB
	Listed       int           // references in the factory attributes; default 512
	Waiters      int           // status requests held back at once; default 4096
	Wait         time.Duration // one is held back at most so long; default 5 min
	Output       int           // bytes of one chunk; default 1 MiB
	// Ahead is how many jobs a site is given beyond its slots, so that a slot that
	// falls free finds work at the site; default the slots again, at least 16, and
	// AheadBulk for a site to which many alike jobs are about one request: a batch
	// system orders its own queue, and is told of thousands as easily as of one.
	Ahead     int
	AheadBulk int // default 20 000
	// Decisions is how many records of decisions are kept; default 100 000. The oldest
	// go first.
	Decisions int
}

// Retry says how failed attempts are repeated.
type Retry struct {
	First time.Duration // after the first failure; doubles each time; default 1 s
	Most  time.Duration // default 5 min
	Lost  int           // placements that may be lost before they ran; default 5
}

// Flapping says when a site comes and goes too often, and for how long it is then
// kept out. Zero means the default.
type Flapping struct {
	Flaps  int           // times that it went; default 4
	Window time.Duration // within so long; default 10 min
	First  time.Duration // it is kept out; doubles each time until it stays for Window; default 1 min
	Most   time.Duration // default 1 h
}

// Hooks are told what happens, for metrics. Any may be nil; all are called from
// many goroutines and must return at once.
type Hooks struct {
	Submitted func(site string)                                   // a job was accepted; site when pinned
	Stepped   func(from, to, event string)                        // a job's step is durable
	Committed func(changes int, took time.Duration)               // one write of the committer
	Placed    func(site string, jobs int, took time.Duration)     // one Submit call of an adapter
	Site      func(site string, up bool)                          // a site came or went
	Gauges    func(live, queued int)                              // after each round of the dispatcher
	Illegal   func(phase, event string)                           // the table does not name this
	Ended     func(site, phase string, waited, ran time.Duration) // a job is final

	Replicated func(site string)        // a replica of a job was given to a site
	Wasted     func(cpuSeconds float64) // one ended that had used so much in vain
}

// EnsureDefaults fills in what was left out.
func (c *Config) EnsureDefaults() {
	def(&c.Replica, "gateway")
	def(&c.CommonName, "Portolan")
	def(&c.Limits.Live, 1_000_000)
	def(&c.Limits.LivePerOwner, 100_000)
	def(&c.Limits.Document, 1<<20)
	def(&c.Limits.Listed, 512)
	def(&c.Limits.Waiters, 4096)
	def(&c.Limits.Wait, 5*time.Minute)
	def(&c.Limits.Output, 1<<20)
	def(&c.Limits.Decisions, 100_000)
	def(&c.Limits.AheadBulk, 20_000)
	def(&c.Retry.First, time.Second)
	def(&c.Retry.Most, 5*time.Minute)
	def(&c.Retry.Lost, 5)
	def(&c.Flapping.Flaps, 4)
	def(&c.Flapping.Window, 10*time.Minute)
	def(&c.Flapping.First, time.Minute)
	def(&c.Flapping.Most, time.Hour)
	def(&c.Retention, 30*24*time.Hour)
	def(&c.PollInterval, 2*time.Second)
	def(&c.AuditInterval, 30*time.Second)
	def(&c.ToldInterval, 10*time.Second)
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Catalogue == nil {
		c.Catalogue = schedule.BuiltIn()
	}
	if c.Jitter == nil {
		c.Jitter = rand.Float64
	}
	if c.Authorise == nil {
		c.Authorise = func(_ soap.Principal, p Permission) error {
			if p == Oversee {
				return errors.New("nobody oversees others' activities here")
			}
			return nil
		}
	}
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// Validate says what can't work.
func (c *Config) Validate() error {
	switch {
	case c.Store == nil:
		return errors.New("broker: no store")
	case c.BaseURL == nil:
		return errors.New("broker: no base URL")
	case len(c.Sites) == 0:
		return errors.New("broker: no sites: jobs would have nowhere to run")
	case len(c.Sites) > maxSites:
		return fmt.Errorf("broker: %d sites; at most %d", len(c.Sites), maxSites)
	}
	seen := map[string]bool{}
	for _, s := range c.Sites {
		if s.Name == "" || s.Adapter == nil {
			return errors.New("broker: a site needs a name and an adapter")
		}
		if seen[s.Name] {
			return fmt.Errorf("broker: two sites are called %q", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

// maxSites bounds the sites of one gateway, as each has loops of its own.
const maxSites = 512
