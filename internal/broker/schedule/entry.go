package schedule

import (
	"strconv"
	"strings"
	"time"

	"github.com/portolan-project/portolan/internal/broker/policy"
	"github.com/portolan-project/portolan/resourcemodel"
)

// Entry is a waiting job with what a Scheduler needs to know of it beside what
// policies see. None of it changes while the job waits: remove it and add it anew.
type Entry struct {
	*policy.Job
	Attempt   int                 // of the placement that it waits for, from 1
	Queue     string              // the share that its document names, if it names one
	NotBefore time.Time           // as the gateway wants it; the request may have a later one
	Avoid     []resourcemodel.Key // sites that are not to get it, in order
	// Later are the peers among Avoid that it may get later, by the name of the site, with what
	// stands against each until then.
	Later map[string]string
	Way   *Way // of a job of another domain; nil of our own
	Only  *Pin // where alone it is to go, by its promise; nil is anywhere
}

// Pin is the site, and the share if one is named, that alone is to get a job.
type Pin struct {
	Key   resourcemodel.Key `json:"key"`
	Share string            `json:"share,omitempty"`
	// Reserved says that the manager itself keeps room for the job, and shows it as taken: the
	// job is placed whatever is free.
	Reserved bool `json:"reserved,omitempty"`
}

// bars reports whether a share at a site is not to get a job.
func (p *Pin) bars(k resourcemodel.Key, share string) bool {
	return p != nil && (p.Key != k || p.Share != "" && p.Share != share)
}

func (p *Pin) String() string {
	if p.Share != "" {
		return p.Share + " at " + p.Key.String()
	}
	return "the site " + p.Key.String()
}

// from gives when the job may be placed at the earliest.
func (e *Entry) from() time.Time {
	if e.Request.NotBefore.After(e.NotBefore) {
		return e.Request.NotBefore
	}
	return e.NotBefore
}

// waiting is an Entry that is in.
type waiting struct {
	Entry
	class  *class
	spot   spot  // in the book in force
	shadow *spot // in the other; nil where it never was in one
	later  int32 // in the heap of those that wait for a moment; -1: not in it
	// barred: no policy of selection takes any of the places, which only time or a
	// change can mend. It is in class.barred.
	barred bool
}

// spot is where a job is in one book. There may be a million of them.
type spot struct {
	in  *cell // nil: it is not in the book
	key policy.Key
	at  int32
}

// in gives where a job is in a book.
func (w *waiting) in(book int) *spot {
	if book == 0 {
		return &w.spot
	}
	if w.shadow == nil {
		w.shadow = new(spot)
	}
	return w.shadow
}

// class is all waiting jobs that are alike to every place: where one finds no room,
// none does. While it sleeps, its jobs are not looked at.
type class struct {
	id      int
	key     classKey
	request *resourcemodel.Request
	avoid   []resourcemodel.Key
	only    *Pin
	room    string // that is kept for its jobs
	limits  []*limit
	n       int // jobs of it that are in

	awake  [2]bool // in each book
	out    [2][]*cell
	filed  bool                // with the places, as one that waits
	any    bool                // it was not looked at since it was made, or since everything changed
	hints  []resourcemodel.Key // else: the sites that woke it
	full   bool                // a limit was reached
	barred map[string]*waiting
	view   *view
	looked uint64 // the last passage of refresh that looked at it
}

// maxHints bounds the sites that a class remembers as those that woke it.
const maxHints = 8

// classKey is what jobs of a class have in common.
type classKey struct {
	resourcemodel.Class
	rest string // sites that they avoid, limits that hold for them
}

// classOf gives a class for a job that is not in.
func classOf(e *Entry) *class {
	return &class{request: e.Request, avoid: e.Avoid, only: e.Only, room: e.Room}
}

// key gives the key of a job's class. Those who have a limit of their own make
// classes of their own, since one may have reached it and another not.
func (s *Scheduler) key(e *Entry, limits []*limit) classKey {
	k := classKey{Class: s.places.Class(e.Request)}
	if len(e.Avoid) == 0 && len(limits) == 0 && e.Way == nil && e.Only == nil && e.Room == "" {
		return k
	}
	var b strings.Builder
	for _, a := range e.Avoid {
		b.WriteString("-" + a.Domain + "\x00" + a.Site + "\x00")
	}
	for _, l := range limits {
		b.WriteString("=" + l.group + "\x00")
	}
	if e.Way != nil { // where it may go depends on where it was
		b.WriteString("~" + strconv.Itoa(e.Way.Hops) + "\x00" + strings.Join(e.Way.Path, "\x00") + "\x00")
	}
	if e.Only != nil {
		b.WriteString("!" + e.Only.Key.Domain + "\x00" + e.Only.Key.Site + "\x00" + e.Only.Share + "\x00" + strconv.FormatBool(e.Only.Reserved))
	}
	if e.Room != "" {
		b.WriteString("#" + e.Room + "\x00")
	}
	k.rest = b.String()
	return k
}
