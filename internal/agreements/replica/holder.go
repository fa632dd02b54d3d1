package replica

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/portolan-project/portolan/internal/broker"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// HolderOptions says what a Holder works with. All but Off, Log and Now are required.
type HolderOptions struct {
	Store    store.Store // of the domain
	URL      string      // what the process serves is below that
	Promises Promises
	// Off says that the process keeps no agreements: no replica is to make any.
	Off bool
	// Sights tells how the sites stand (broker.Broker.Sights).
	Sights func(most int) (map[string]broker.SiteSight, error)
	Log    *slog.Logger
	Now    func() time.Time // nil is time.Now
}

// Holder tells replicas of the process that has the sites.
type Holder struct {
	o        HolderOptions
	instance string
	woken    chan struct{}

	mu      sync.Mutex
	notes   notes
	written map[string][]byte // of sites, without the time
	at      map[string]time.Time
}

const (
	// tellEvery is how often replicas are told how sites stand, if that changed; freshen is how often
	// if it did not, so that they know that it is still so.
	tellEvery = 2 * time.Second
	freshen   = 30 * time.Second
	// mostEntries bounds what is told of the jobs of a share.
	mostEntries = 500
)

// NewHolder makes a Holder.
func NewHolder(o HolderOptions) *Holder {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Holder{o: o, instance: instance(), woken: make(chan struct{}, 1), written: map[string][]byte{}, at: map[string]time.Time{}}
}

func instance() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// Run tells of it until ctx ends, when it gives nil.
func (h *Holder) Run(ctx context.Context) error {
	var g errgroup.Group
	mine := presence{Instance: h.instance, URL: h.o.URL, Off: h.o.Off}
	if !h.o.Off {
		mine.Promises = &h.o.Promises
	}
	g.Go(func() error {
		return attend(ctx, h.o.Store, HolderName+"-holder", holderKey, encode(mine), h.o.Log, nil)
	})
	if h.o.Off {
		return g.Wait()
	}
	g.Go(func() error {
		follow(ctx, h.o.Store, h.o.Log, func(records []store.Record, all bool) {
			h.mu.Lock()
			if err := h.notes.take(records, all); err != nil {
				h.o.Log.Warn("what another process of the domain says can't be read", "cause", err)
			}
			h.mu.Unlock()
			if !all && !slices.ContainsFunc(records, func(r store.Record) bool { return strings.HasPrefix(r.Key, replicaPrefix) }) {
				return // they are our own
			}
			select {
			case h.woken <- struct{}{}:
			default:
			}
		})
		return nil
	})
	g.Go(func() error {
		for {
			if err := h.tell(ctx); err != nil && ctx.Err() == nil {
				h.o.Log.Warn("the replicas are not told how the sites stand", "cause", err)
			}
			t := time.NewTimer(tellEvery)
			select {
			case <-ctx.Done():
				t.Stop()
				return nil
			case <-h.woken: // a replica came or went
			case <-t.C:
			}
			t.Stop()
		}
	})
	return g.Wait()
}

// tell writes how the sites stand, if there are replicas.
func (h *Holder) tell(ctx context.Context) error {
	h.mu.Lock()
	replicas, known := len(h.notes.replicas), h.notes.known()
	h.mu.Unlock()
	if replicas == 0 {
		return nil
	}
	sights, err := h.o.Sights(mostEntries)
	if fail.Is(err, fail.Unavailable) {
		return nil // it is starting
	}
	if err != nil {
		return err
	}
	now := h.o.Now().UTC()
	for name, s := range sights {
		b := encode(s)
		if bytes.Equal(b, h.written[name]) && now.Sub(h.at[name]) < freshen {
			continue
		}
		value := encode(seen{s, now})
		if len(value) > store.MaxRecord {
			h.o.Log.Warn("too much runs at a site for replicas to be told", "site", name, "bytes", len(value))
			continue
		}
		if _, err := h.o.Store.PutRecords(ctx, nil, store.RecordChange{Key: siteKey(name), Value: value, If: -1}); err != nil {
			return err
		}
		h.written[name], h.at[name] = b, now
	}
	for _, name := range known {
		if _, there := sights[name]; !there {
			delete(h.written, name)
			if _, err := h.o.Store.PutRecords(ctx, nil, store.RecordChange{Key: siteKey(name), If: -1}); err != nil {
				return err
			}
		}
	}
	return nil
}

// attend keeps a record under a lease until ctx ends. lost is asked before a lease that was lost is taken anew,
// a moment after it was, as whoever has it then says so after it took it; its error ends it.
func attend(ctx context.Context, st store.Store, session, key string, value []byte, log *slog.Logger, lost func(context.Context) error) error {
	had := false
	for wait := time.Second; ; {
		if had && lost != nil {
			if err := lost(ctx); err != nil {
				return err // it is another's now
			}
		}
		sess, err := st.Join(ctx, session)
		if err == nil {
			if _, err = st.PutRecords(ctx, sess, store.RecordChange{Key: key, Value: value, If: -1, Bound: true}); err == nil {
				wait, had = time.Second, true
				select {
				case <-sess.Lost():
				case <-ctx.Done():
				}
			}
			_ = sess.Close() // a lease that can't be given back runs out
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // what fails while stopping is no failure
		}
		log.Warn("the other processes of the domain are told anew where this one is", "cause", err)
		if !pause(ctx, wait) {
			return nil
		}
		wait = min(2*wait, 10*time.Second)
	}
}

// follow gives the records of the domain's processes, all of them at first and then those that change, until
// ctx ends.
func follow(ctx context.Context, st store.Records, log *slog.Logger, tell func(records []store.Record, all bool)) {
	for ctx.Err() == nil {
		records, revision, err := st.ListRecords(ctx, prefix, store.RecordOptions{})
		if err == nil {
			tell(records, true)
			err = watch(ctx, st, revision, func(records []store.Record) { tell(records, false) })
		}
		if ctx.Err() != nil {
			return
		}
		log.Warn("the other processes of the domain can't be followed at present", "cause", err)
		pause(ctx, time.Second)
	}
}

// watch gives what changes after a revision, until that can't be told any more.
func watch(ctx context.Context, st store.Records, revision int64, tell func([]store.Record)) error {
	for ctx.Err() == nil {
		err := st.WatchRecords(ctx, prefix, revision, func(records []store.Record, at int64) {
			revision = max(revision, at)
			tell(records)
		})
		if fail.Is(err, fail.Conflict) || !pause(ctx, 100*time.Millisecond) {
			return err
		}
	}
	return ctx.Err()
}

func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
