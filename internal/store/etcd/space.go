package etcd

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/internal/fail"
)

// disk is the file system below an embedded etcd.
type disk struct {
	dir     string
	reserve int64

	mu      sync.Mutex
	checked time.Time
	free    int64
	err     error
}

// diskAge is how old a measurement may be.
const diskAge = 20 * time.Millisecond

// measure gives the free bytes.
func (d *disk) measure() (int64, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.checked) > diskAge {
		var st unix.Statfs_t
		d.err = unix.Statfs(d.dir, &st)
		d.free = int64(st.Bavail) * int64(st.Bsize)
		d.checked = now
	}
	return d.free, d.err
}

// room refuses a write that the disk or the quota has no room for. New jobs are
// refused earlier than changes of those that exist.
func (d *disk) room(op string, bytes int64, create bool) error {
	free, err := d.measure()
	if err != nil {
		return fail.Errorf(op, fail.Unavailable, d.dir, "the disk of the store cannot be looked at: %v", err).Because(err)
	}
	keep := d.reserve
	if !create {
		keep /= 2
	}
	// What is written is written twice: to the log and to the database.
	if free-2*bytes >= keep {
		return nil
	}
	return fail.Errorf(op, fail.Exhausted, d.dir, "the disk of the store has %s free, and the store keeps %s; make room in the file system of its data directory", mebibytes(free), mebibytes(keep))
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// startable refuses to start etcd where it could not write its first files, or go
// on with those it has.
func (d *disk) startable() error {
	free, err := d.measure()
	if err != nil {
		return fail.Errorf("store.Open", fail.Invalid, d.dir, "the data directory %s cannot be used: %v", d.dir, err).Because(err)
	}
	need := int64(32 << 20)
	if _, err := os.Stat(filepath.Join(d.dir, "etcd", "member", "snap", "db")); err == nil {
		need = 0 // what it needs to go on was set aside
	}
	if free < need {
		return fail.Errorf("store.Open", fail.Exhausted, d.dir, "the file system of %s has %s free, and a new store needs %s; make room or choose another directory", d.dir, mebibytes(free), mebibytes(need))
	}
	return nil
}

// aside is how much of the disk the database has for itself beyond its size.
const aside = 16 << 20

// setAside gives the database's file blocks for what it will grow by. That it
// can't be done is met by the reserve.
func (d *disk) setAside() {
	f, err := os.OpenFile(filepath.Join(d.dir, "etcd", "member", "snap", "db"), os.O_RDWR, 0)
	if err != nil {
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil {
		_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, st.Size()+aside)
	}
}

// quota is how full an embedded database is.
type quota struct {
	alarmed atomic.Bool // etcd refuses every write
	woken   chan struct{}
}

func (q *quota) wake() {
	select {
	case q.woken <- struct{}{}:
	default:
	}
}

// room refuses what disk or quota have no room for.
func (s *Store) room(op string, bytes int64, create bool) error {
	if err := s.disk.room(op, bytes, create); err != nil {
		return err
	}
	if s.quota.alarmed.Load() || (create && s.full(bytes)) {
		s.quota.wake()
		return s.quotaFull(op)
	}
	return nil
}

// What jobs take: nobody can be served where there is no room for a small one, and there is
// something to be done where there is none for a large one.
const (
	smallJob = 4 << 10
	largeJob = 1 << 20
)

// full reports whether new jobs must wait for room.
func (s *Store) full(bytes int64) bool {
	return s.etcd.Server.Backend().Size()+bytes > s.ceiling()
}

// ceiling is the database's size above which new jobs are refused: the rest is for
// those that exist. The file grows by 16 MiB at a time.
func (s *Store) ceiling() int64 {
	return s.opts.QuotaBytes - max(s.opts.QuotaBytes/10, 32<<20)
}

func (s *Store) quotaFull(op string) *fail.Error {
	if s.etcd == nil {
		return fail.Errorf(op, fail.Exhausted, "", "the etcd cluster has used up its quota; compact and defragment it, or raise its --quota-backend-bytes")
	}
	return fail.Errorf(op, fail.Exhausted, "", "the store has no room for more jobs within its quota of %s; raise the quota, or wait until finished jobs are removed", mebibytes(s.opts.QuotaBytes))
}

// tend looks after an embedded etcd until ctx ends.
func (s *Store) tend(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var tried time.Time
	s.readAlarm(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.etcd.Server.StopNotify():
			s.die(ending{public: "the store has stopped, and the gateway must be started again"})
			return
		case <-tick.C:
		case <-s.quota.woken:
		}
		s.disk.setAside()
		if (s.quota.alarmed.Load() || s.full(largeJob)) && time.Since(tried) > 5*time.Second {
			s.reclaim(ctx)
			tried = time.Now()
		}
	}
}

// readAlarm learns of an alarm that an earlier process met.
func (s *Store) readAlarm(ctx context.Context) {
	alarms, err := s.cli.AlarmList(ctx)
	if err != nil {
		return
	}
	for _, a := range alarms.Alarms {
		if a.Alarm == pb.AlarmType_NOSPACE {
			s.quota.alarmed.Store(true)
			s.quota.wake()
		}
	}
}

// reclaim gives back what old revisions and deleted keys take. It defragments only
// when there is something to gain.
func (s *Store) reclaim(ctx context.Context) {
	if free, err := s.disk.measure(); err != nil || free < s.etcd.Server.Backend().SizeInUse() {
		return // defragmenting writes a copy
	}
	at, err := s.cli.Get(ctx, schemaKey)
	if err != nil {
		return
	}
	// An error here is one of having been compacted already.
	_, _ = s.cli.Compact(ctx, at.Header.Revision, clientv3.WithCompactPhysical())
	s.etcd.Server.Backend().ForceCommit()
	size, used := s.etcd.Server.Backend().Size(), s.etcd.Server.Backend().SizeInUse()
	if s.full(largeJob) && size-used > s.opts.QuotaBytes/20 {
		began := time.Now()
		if err := s.etcd.Server.Backend().Defrag(); err != nil {
			s.log.Warn("the store could not be defragmented", "cause", err)
			return
		}
		s.disk.setAside()
		size = s.etcd.Server.Backend().Size()
		s.log.Info("the store was defragmented", "bytes", size, "took", time.Since(began))
	}
	if !s.quota.alarmed.Load() || size > s.ceiling() {
		return
	}
	if _, err := s.cli.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		s.log.Warn("the store's alarm could not be taken back", "cause", err)
		return
	}
	s.quota.alarmed.Store(false)
	s.log.Info("the store takes writes again")
}

// Health implements store.Store.
func (s *Store) Health(ctx context.Context) error {
	const op = "store.Health"
	if err := s.usable(op); err != nil {
		return err
	}
	if s.etcd != nil {
		if s.etcd.Server.Leader() == 0 {
			return fail.Errorf(op, fail.Unavailable, "", "the store is starting")
		}
		return s.room(op, smallJob, true)
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.GetResponse, error) { return s.cli.Get(ctx, schemaKey) }); err != nil {
		return fail.Errorf(op, fail.Unavailable, "", "the etcd cluster at %v does not answer", s.opts.Endpoints).Because(err)
	}
	alarms, err := call(ctx, s, op, func(ctx context.Context) (*clientv3.AlarmResponse, error) { return s.cli.AlarmList(ctx) })
	if err != nil {
		return nil // a user without the right to ask learns of alarms by refused writes
	}
	for _, a := range alarms.Alarms {
		if a.Alarm == pb.AlarmType_NOSPACE {
			return s.quotaFull(op)
		}
	}
	return nil
}
