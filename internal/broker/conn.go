package broker

import (
	"log/slog"
	"sync"

	"github.com/portolan-project/portolan/adapters"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/jsdl"
)

// conn is an open adapter of a site, with what was asked of it once.
type conn struct {
	adapters.Adapter
	props    adapters.Properties
	holder   adapters.Holder         // nil: it can't
	suspend  adapters.Suspender      // nil: it can't
	watcher  adapters.Watcher        // nil: it is polled
	leaser   adapters.Leaser         // nil: it can't
	recaller adapters.Recaller       // nil: it can't
	accounts adapters.AccountChecker // nil: it does not say
	reserver adapters.Reserver       // nil: it can't

	// use is read-held by calls that are none of the site's loops, and held for
	// good by whoever closes the adapter.
	use sync.RWMutex
}

func newConn(a adapters.Adapter) *conn {
	c := &conn{Adapter: a, props: a.Properties()}
	if c.props.Hold {
		c.holder, _ = a.(adapters.Holder)
	}
	if c.props.Suspend {
		c.suspend, _ = a.(adapters.Suspender)
	}
	if c.props.Push {
		c.watcher, _ = a.(adapters.Watcher)
	}
	if c.props.Recall {
		c.recaller, _ = a.(adapters.Recaller)
	}
	if c.props.Reserve {
		c.reserver, _ = a.(adapters.Reserver)
	}
	if c.props.Lease {
		c.leaser, _ = a.(adapters.Leaser)
	}
	c.accounts, _ = a.(adapters.AccountChecker)
	return c
}

// checkAs says whether the site could ever run the definition as an account; "" is the usual one.
func (c *conn) checkAs(def *jsdl.JobDefinition, account string) error {
	if account == "" || c.accounts == nil {
		return c.Check(def)
	}
	return c.accounts.CheckAs(def, account)
}

func (c *conn) close(log *slog.Logger, site string) {
	c.use.Lock() // it stays locked: nobody may use the adapter any more
	if err := c.Close(); err != nil {
		log.Warn("a site's adapter was not closed in order", "site", site, "cause", err)
	}
}

// borrow gives the site's adapter for a call outside of its loops, and what must
// be called after it.
func (s *site) borrow() (*conn, func(), error) {
	c := s.conn.Load()
	if c == nil || !c.use.TryRLock() {
		return nil, nil, fail.Errorf("broker", fail.Unavailable, s.name, "the site %s can't be asked now: %s", s.name, s.absence())
	}
	return c, c.use.RUnlock, nil
}

// absence says why a site has no adapter.
func (s *site) absence() string {
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	return s.absenceLocked()
}

func (s *site) absenceLocked() string {
	switch {
	case s.broken != nil:
		return fail.Sentence(s.broken)
	case !s.configured:
		return "it is not configured here any more"
	}
	return "its settings are being changed"
}
