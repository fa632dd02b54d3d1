package together

import (
	"context"
	"encoding/json"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/beevik/etree"
	"golang.org/x/time/rate"

	"github.com/portolan-project/portolan/agreement"
	"github.com/portolan-project/portolan/internal/fail"
	"github.com/portolan-project/portolan/internal/store"
)

// Provider is where a part is agreed on: an agreement.Client, or a Service at home that is a
// Preparer.
type Provider interface {
	agreement.Preparer
	Agreement(ctx context.Context, key string) (*agreement.Properties, error)
	Terminate(ctx context.Context, key string, reason *etree.Element) error
}

// Options says how a Coordinator works.
type Options struct {
	// Dial gives a provider by its name, to act for an owner there, and for a VO ("" is none); it
	// must not wait for the network. It is called again after a restart. An error for an unknown
	// name refuses a part that is to be prepared.
	Dial    func(ctx context.Context, owner, provider, vo string) (Provider, error)
	Replica string // our name; "" is "gateway"
	Log     *slog.Logger
	Now     func() time.Time // nil is time.Now
	// Margin is by how much the clocks of coordinator and providers may differ; as much again is
	// left for a decision to reach everybody. 0 is 10 seconds.
	Margin time.Duration
	// Patience is how long parts are prepared where the plan has no deadline, and MaxPatience
	// the longest that a plan may have; 0 is 30 seconds and 5 minutes.
	Patience, MaxPatience time.Duration
	// Timeout bounds one request to a provider; 0 is 10 seconds. One that is to hold something may
	// take half of the time that is left, if that is more.
	Timeout time.Duration
	// GiveUp is how long after its time a provider that is out of reach is asked what it keeps;
	// 0 is a day.
	GiveUp time.Duration
	// Retention is how long a coordination that has ended is kept, and one that is committed after the
	// last time that its offers name; 0 is 30 days.
	Retention time.Duration
	// MaxKept bounds those of one owner that have ended and are kept, the newest, and ten times as many
	// that are committed; 0 is 1,000. MaxHourly bounds those that one owner begins within an hour; 0 is 1,000.
	MaxKept, MaxHourly int
	// MaxLive bounds the coordinations that have not ended; 0 is 1,000.
	MaxLive int
	// MaxCalls bounds the parts that providers are asked to hold at a time, and MaxReads those that
	// they are asked about; 0 is 64 and 16. Of each kind, and of those that are confirmed or ended, one
	// provider is asked 8 at a time.
	MaxCalls, MaxReads int
}

// EnsureDefaults fills in what is not set.
func (o *Options) EnsureDefaults() {
	if o.Replica == "" {
		o.Replica = "gateway"
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	for _, d := range []struct {
		of *time.Duration
		is time.Duration
	}{
		{&o.Margin, 10 * time.Second},
		{&o.Patience, 30 * time.Second},
		{&o.MaxPatience, 5 * time.Minute},
		{&o.Timeout, 10 * time.Second},
		{&o.GiveUp, 24 * time.Hour},
		{&o.Retention, 30 * 24 * time.Hour},
	} {
		if *d.of == 0 {
			*d.of = d.is
		}
	}
	if o.MaxLive == 0 {
		o.MaxLive = 1000
	}
	if o.MaxCalls == 0 {
		o.MaxCalls = 64
	}
	if o.MaxKept == 0 {
		o.MaxKept = 1000
	}
	if o.MaxHourly == 0 {
		o.MaxHourly = 1000
	}
	if o.MaxReads == 0 {
		o.MaxReads = 16
	}
}

// Validate reports what can't be worked with.
func (o *Options) Validate() error {
	const op = "together.New"
	switch {
	case o.Dial == nil:
		return fail.Errorf(op, fail.Invalid, "", "a coordinator must be told how to reach providers: set Dial")
	case min(o.Margin, o.Patience, o.MaxPatience, o.Timeout, o.GiveUp, o.Retention) < 0:
		return fail.Errorf(op, fail.Invalid, "", "the times of a coordinator can't be negative")
	case o.Patience > o.MaxPatience:
		return fail.Errorf(op, fail.Invalid, "", "the patience of %s is more than the longest, %s", o.Patience, o.MaxPatience)
	case min(o.MaxKept, o.MaxHourly) < 1:
		return fail.Errorf(op, fail.Invalid, "", "an owner must have room for a coordination: MaxKept is %d and MaxHourly %d", o.MaxKept, o.MaxHourly)
	case min(o.MaxLive, o.MaxCalls, o.MaxReads) < 1:
		return fail.Errorf(op, fail.Invalid, "", "there must be room for a coordination and a request: MaxLive is %d, MaxCalls %d and MaxReads %d", o.MaxLive, o.MaxCalls, o.MaxReads)
	}
	return nil
}

// Coordinator makes agreements at several places as one. Its methods may be called at once from
// many goroutines; nothing moves on but while Run runs.
type Coordinator struct {
	st    store.Records
	opts  Options
	lanes *lanes // of the requests that are under way

	mu      sync.Mutex
	entries map[string]*entry        // coordinations that have not ended
	begun   map[string]*rate.Limiter // by owner
}

// entry is a coordination that has not ended, as this process knows it.
type entry struct {
	id      string
	fresh   bool // begun by this process, and not prepared yet
	started bool
	news    chan struct{} // the record changed
	done    chan struct{} // closed at its end, or that of Run
	final   *Record       // as it ended; nil: Run did
}

// New makes a Coordinator. What was under way in the store goes on when Run runs.
func New(st store.Records, o Options) (*Coordinator, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	return &Coordinator{st: st, opts: o, lanes: newLanes(o.MaxCalls, o.MaxReads), entries: map[string]*entry{}, begun: map[string]*rate.Limiter{}}, nil
}

func (c *Coordinator) now() time.Time { return c.opts.Now().UTC().Round(0) }

// Coordinate agrees on all parts of a plan, or on none, and gives the outcome when all is done.
// The error is nil then, whatever the outcome is: none of the errors says that some part may be
// binding for good, other than fail.Unavailable and fail.Uncertain, after which the coordination
// may go on: the same plan again waits for its outcome. Another plan of the same ID is
// fail.Conflict.
func (c *Coordinator) Coordinate(ctx context.Context, p Plan) (Outcome, error) {
	const op = "together.Coordinate"
	r, offers, err := c.record(&p, c.now())
	if err != nil {
		return Outcome{}, err
	}
	old, err := c.read(ctx, p.ID)
	if err != nil {
		return Outcome{}, err
	}
	if old == nil { // who asks again may do so when the time has passed
		if err := c.until(r, p.Deadline); err != nil {
			return Outcome{}, err
		}
		if old, err = c.begin(ctx, r, offers); err != nil {
			return Outcome{}, err
		}
	}
	if old.Digest != r.Digest {
		return Outcome{}, fail.Errorf(op, fail.Conflict, p.ID, "the id %s belongs to another plan", p.ID)
	}
	return c.await(ctx, old)
}

// begin writes a coordination that is new, and gives it, or what is there by its id.
func (c *Coordinator) begin(ctx context.Context, r *Record, offers [][]byte) (*Record, error) {
	const op = "together.Coordinate"
	c.mu.Lock()
	e := c.entries[r.ID]
	made := e == nil
	if made {
		if len(c.entries) >= c.opts.MaxLive {
			c.mu.Unlock()
			return nil, fail.Errorf(op, fail.Exhausted, r.ID, "%d coordinations are under way, as many as may be; try again when some have ended", c.opts.MaxLive)
		}
		l := c.begun[r.Owner]
		if l == nil {
			l = rate.NewLimiter(rate.Limit(float64(c.opts.MaxHourly)/3600), c.opts.MaxHourly)
			c.begun[r.Owner] = l
		}
		if !l.AllowN(r.Created, 1) {
			c.mu.Unlock()
			return nil, fail.Errorf(op, fail.Exhausted, r.ID, "%s has begun %d coordinations within the hour, as many as may be; try again in some minutes", r.Owner, c.opts.MaxHourly)
		}
		e = c.entry(r.ID)
		e.fresh = true
	}
	c.mu.Unlock()
	docs, err := json.Marshal(offers)
	if err == nil {
		_, err = c.st.PutRecords(ctx, nil, store.RecordChange{Key: stateKey(r.ID), Value: r.encode()}, store.RecordChange{Key: offersKey(r.ID), Value: docs})
	}
	if err == nil {
		return r, nil
	}
	there, err2 := c.read(ctx, r.ID)
	if ours := there != nil && there.Digest == r.Digest && there.By == r.By && there.Created.Equal(r.Created); made && !ours {
		c.mu.Lock()
		e.fresh = false // it is not ours to prepare, if it is there
		if !e.started {
			delete(c.entries, r.ID)
		}
		c.mu.Unlock()
	}
	switch {
	case err2 != nil:
		return nil, fail.Errorf(op, fail.Uncertain, r.ID, "it is not known whether the coordination has begun; ask again with the same plan").Because(err2)
	case there == nil:
		return nil, err
	}
	return there, nil
}

// entry makes an entry. c.mu is held.
func (c *Coordinator) entry(id string) *entry {
	e := &entry{id: id, news: make(chan struct{}, 1), done: make(chan struct{})}
	c.entries[id] = e
	return e
}

// await gives the outcome of a coordination when it has ended.
func (c *Coordinator) await(ctx context.Context, r *Record) (Outcome, error) {
	const op = "together.Coordinate"
	c.mu.Lock()
	e := c.entries[r.ID]
	made := e == nil
	if made {
		e = c.entry(r.ID)
	}
	c.mu.Unlock()
	if made {
		// It may have ended before we could ask to be told.
		var err error
		if r, err = c.read(ctx, r.ID); err != nil || r == nil || r.State.Final() {
			c.mu.Lock()
			if c.entries[e.id] == e && !e.started {
				delete(c.entries, e.id)
			}
			c.mu.Unlock()
			if err != nil {
				return Outcome{}, err
			}
			if r == nil {
				return Outcome{}, fail.Errorf(op, fail.NotFound, e.id, "the coordination %s is over and was removed", e.id)
			}
			return r.Outcome(), nil
		}
	}
	select {
	case <-e.done:
		if e.final != nil {
			return e.final.Outcome(), nil
		}
		return Outcome{}, fail.Errorf(op, fail.Unavailable, e.id, "the gateway ends; the coordination %s goes on when it is back: ask again with the same plan", e.id)
	case <-ctx.Done():
		return Outcome{}, fail.Errorf(op, fail.Unavailable, e.id, "the coordination %s has not ended yet, and goes on; ask again with the same plan", e.id).Because(context.Cause(ctx))
	}
}

// Get gives a coordination; fail.NotFound when there is none of that owner.
func (c *Coordinator) Get(ctx context.Context, owner, id string) (Record, error) {
	r, err := c.read(ctx, id)
	if err != nil {
		return Record{}, err
	}
	if r == nil || r.Owner != owner {
		return Record{}, fail.Errorf("together.Get", fail.NotFound, id, "there is no coordination %q", id)
	}
	return *r, nil
}

// MaxList bounds an answer of List.
const MaxList = 1000

// newer is the order of List.
func newer(a, b Record) int {
	if n := b.Created.Compare(a.Created); n != 0 {
		return n
	}
	return strings.Compare(b.ID, a.ID)
}

// List gives the coordinations of an owner, the newest first, after the id before ("" from the
// newest), at most limit, and MaxList.
func (c *Coordinator) List(ctx context.Context, owner, before string, limit int) ([]Record, error) {
	limit = min(max(limit, 0), MaxList)
	var from Record
	if before != "" {
		r, err := c.read(ctx, before)
		if err != nil {
			return nil, err
		}
		if r == nil || r.Owner != owner {
			return nil, fail.Errorf("together.List", fail.NotFound, before, "there is no coordination %q", before)
		}
		from = *r
	}
	var all []Record
	cut := func() {
		slices.SortFunc(all, newer)
		clear(all[min(limit, len(all)):])
		all = all[:min(limit, len(all))]
	}
	err := c.scan(ctx, func(v store.Record, r *Record) error {
		if r.Owner == owner && (before == "" || newer(from, *r) < 0) {
			if all = append(all, *r); len(all) > 2*limit {
				cut()
			}
		}
		return nil
	})
	cut()
	return all, err
}

// scan gives all that is kept, but for what is damaged, until each fails.
func (c *Coordinator) scan(ctx context.Context, each func(store.Record, *Record) error) error {
	for after := ""; ; {
		list, _, err := c.st.ListRecords(ctx, statePrefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return err
		}
		for _, v := range list {
			if r, err := decode(v); err == nil {
				if err := each(v, r); err != nil {
					return err
				}
			}
		}
		if len(list) < page {
			return nil
		}
		after = list[len(list)-1].Key
	}
}

// Dissolve ends all parts of a coordination that is committed: it is decided when Dissolve gives nil, and
// done as soon as providers answer. Again, it changes nothing. fail.Conflict is one that is not
// committed, fail.NotFound one that is not the owner's.
func (c *Coordinator) Dissolve(ctx context.Context, owner, id, reason string) error {
	const op = "together.Dissolve"
	for {
		r, err := c.Get(ctx, owner, id)
		if err != nil {
			return err
		}
		switch {
		case r.State == Dissolving || r.State == Dissolved:
			return nil
		case !r.State.Final():
			return fail.Errorf(op, fail.Conflict, id, "the coordination %s is %s; wait until it has ended, which takes minutes at most", id, r.State)
		case r.State != Committed:
			return fail.Errorf(op, fail.Conflict, id, "the coordination %s is %s: there is nothing to end", id, r.State)
		}
		n := r.clone()
		if err := n.step(c.now(), Dissolve, reason); err != nil {
			return err
		}
		n.By = c.opts.Replica
		_, err = c.st.PutRecords(ctx, nil, store.RecordChange{Key: stateKey(id), Value: n.encode(), If: r.Revision})
		if !fail.Is(err, fail.Conflict) {
			return err
		}
	}
}

// read reads a coordination; nil: there is none.
func (c *Coordinator) read(ctx context.Context, id string) (*Record, error) {
	if id == "" || len(id) > MaxID {
		return nil, nil
	}
	v, err := c.value(ctx, stateKey(id))
	if err != nil || v == nil {
		return nil, err
	}
	r, err := decode(*v)
	if err != nil {
		return nil, fail.E("together.read", fail.Internal, id, err)
	}
	return r, nil
}

// value reads one record; nil: it is not there.
func (c *Coordinator) value(ctx context.Context, key string) (*store.Record, error) {
	// The key itself comes first of those that begin with it.
	list, _, err := c.st.ListRecords(ctx, key, store.RecordOptions{Limit: 1})
	if err != nil || len(list) == 0 || list[0].Key != key {
		return nil, err
	}
	return &list[0], nil
}

// offers reads what was offered.
func (c *Coordinator) offers(ctx context.Context, id string) ([]agreement.Offer, error) {
	v, err := c.value(ctx, offersKey(id))
	if err != nil || v == nil {
		return nil, err
	}
	var docs [][]byte
	if err := json.Unmarshal(v.Value, &docs); err != nil {
		return nil, fail.E("together.offers", fail.Internal, id, err)
	}
	list := make([]agreement.Offer, len(docs))
	for i, d := range docs {
		o, err := agreement.ParseOffer(d)
		if err != nil {
			return nil, fail.E("together.offers", fail.Internal, id, err)
		}
		o.Element = nil // it is sent as it was made here
		list[i] = *o
	}
	return list, nil
}

// retry is how long Run waits before it asks again a store that did not answer.
const retry = time.Second

// Run does what is to be done for coordinations: those that are begun here, those that were under
// way when this process began, and those that other replicas leave behind, until ctx ends.
func (c *Coordinator) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.prune(ctx) })
	for ctx.Err() == nil {
		if err := c.follow(ctx, &wg); err != nil && ctx.Err() == nil {
			c.opts.Log.Warn("coordinations cannot be followed at present", "cause", err)
			pause(ctx, retry)
		}
	}
	wg.Wait()
	c.mu.Lock()
	for id, e := range c.entries { // those that were not started
		close(e.done)
		delete(c.entries, id)
	}
	c.mu.Unlock()
	return fail.E("together.Run", fail.Unavailable, "", context.Cause(ctx))
}

// page is how many records are read at once.
const page = 256

// follow starts what is there, and what comes.
func (c *Coordinator) follow(ctx context.Context, wg *sync.WaitGroup) error {
	revision := int64(-1)
	for after := ""; ; {
		list, at, err := c.st.ListRecords(ctx, statePrefix, store.RecordOptions{After: after, Limit: page})
		if err != nil {
			return err
		}
		if revision < 0 {
			revision = at
		}
		c.start(ctx, wg, list)
		if len(list) < page {
			break
		}
		after = list[len(list)-1].Key
	}
	c.mu.Lock()
	for _, e := range c.entries { // what ended while nothing was told
		e.wake()
	}
	c.mu.Unlock()
	err := c.st.WatchRecords(ctx, statePrefix, revision, func(list []store.Record, _ int64) { c.start(ctx, wg, list) })
	if fail.Is(err, fail.Conflict) { // fell behind
		return nil
	}
	return err
}

func (e *entry) wake() {
	select {
	case e.news <- struct{}{}:
	default:
	}
}

// start has coordinations looked after that have not ended.
func (c *Coordinator) start(ctx context.Context, wg *sync.WaitGroup, list []store.Record) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, v := range list {
		segment := v.Key[len(statePrefix):]
		id, ok := store.Text(segment)
		if !ok {
			continue
		}
		e := c.entries[id]
		if e != nil && e.started {
			e.wake()
			continue
		}
		if v.Value == nil {
			continue
		}
		r, err := decode(v)
		if err != nil {
			c.opts.Log.Warn("the record of a coordination is damaged", "key", v.Key, "cause", err)
			continue
		}
		if r.State.Final() && e == nil {
			continue
		}
		if e == nil {
			e = c.entry(id)
		}
		e.started = true
		wg.Go(func() { c.supervise(ctx, e) })
	}
}

// supervise looks after a coordination until it has ended.
func (c *Coordinator) supervise(ctx context.Context, e *entry) {
	defer func() {
		c.mu.Lock()
		if c.entries[e.id] == e {
			delete(c.entries, e.id)
		}
		c.mu.Unlock()
		close(e.done)
	}()
	for wait := soon; ctx.Err() == nil; {
		r, err := c.read(ctx, e.id)
		if err != nil {
			if ctx.Err() == nil {
				c.opts.Log.Warn("a coordination can't be read at present", "coordination", e.id, "cause", err)
			}
			pause(ctx, wait)
			wait = min(2*wait, slow)
			continue
		}
		wait = soon
		if r == nil || r.State.Final() {
			c.mu.Lock()
			select {
			case <-e.news: // it may be dissolved since it was read
				c.mu.Unlock()
				continue
			default:
			}
			e.final = r
			delete(c.entries, e.id)
			c.mu.Unlock()
			return
		}
		if left := c.due(r).Sub(c.now()); left > 0 {
			t := time.NewTimer(left)
			select {
			case <-t.C:
			case <-e.news:
			case <-ctx.Done():
			}
			t.Stop()
			continue
		}
		c.mu.Lock()
		fresh := e.fresh
		e.fresh = false
		c.mu.Unlock()
		c.drive(ctx, r, fresh)
	}
}

// due gives when this replica has to act.
func (c *Coordinator) due(r *Record) time.Time {
	switch {
	case r.By == c.opts.Replica:
		return time.Time{}
	case r.State == Preparing: // only its maker can go on; the others end it
		return r.Deadline.Add(c.opts.Margin)
	}
	return r.Changed.Add(c.opts.Margin / 2)
}

// prune removes what was kept long enough, until ctx ends.
func (c *Coordinator) prune(ctx context.Context) {
	every := max(time.Minute, min(time.Hour, c.opts.Retention/24))
	for ctx.Err() == nil {
		if err := c.pruneOnce(ctx); err != nil && ctx.Err() == nil {
			c.opts.Log.Warn("coordinations that were kept long enough could not be removed", "cause", err)
		}
		pause(ctx, every)
	}
}

func (c *Coordinator) pruneOnce(ctx context.Context) error {
	type ended struct {
		key      string
		revision int64
		at       time.Time
	}
	type kind struct {
		owner     string
		committed bool
	}
	kept := map[kind][]ended{}
	remove := func(key string, revision int64) error {
		_, err := c.st.PutRecords(ctx, nil, store.RecordChange{Key: key, If: revision})
		if fail.Is(err, fail.Conflict) {
			return nil
		}
		return err
	}
	err := c.scan(ctx, func(v store.Record, r *Record) error {
		switch {
		case !r.State.Final():
			return nil
		case !c.now().Before(r.kept().Add(c.opts.Retention)):
			return remove(v.Key, v.Revision)
		}
		k := kind{r.Owner, r.State == Committed}
		kept[k] = append(kept[k], ended{v.Key, v.Revision, r.Ended})
		return nil
	})
	if err != nil {
		return err
	}
	for k, list := range kept {
		most := c.opts.MaxKept
		if k.committed {
			most *= 10
		}
		slices.SortFunc(list, func(a, b ended) int { return b.at.Compare(a.at) })
		for _, x := range list[min(most, len(list)):] {
			if err := remove(x.key, x.revision); err != nil {
				return err
			}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for owner, l := range c.begun {
		if l.TokensAt(c.now()) >= float64(c.opts.MaxHourly) {
			delete(c.begun, owner)
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
