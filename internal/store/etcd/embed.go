package etcd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/portolan-project/portolan/internal/fail"
)

func init() {
	// etcd sets aside two segments of its log at a time. Small ones leave room on
	// small disks; a segment that fills up costs two syncs.
	wal.SegmentSizeBytes = 8 << 20
}

// startTime bounds how long an embedded etcd may take to be ready; it reads its
// log of the last ten thousand transactions.
const startTime = 2 * time.Minute

// The bounds of an embedded etcd; those of an external one are its defaults.
const (
	embeddedOps   = 4096
	embeddedBytes = 2 << 20
	externalOps   = 128
	externalBytes = 1 << 20
)

// lockDir makes dir, and refuses one that another process uses. etcd itself would
// wait for the other.
func lockDir(dir string) (*os.File, error) {
	const op = "store.Open"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fail.Errorf(op, fail.Invalid, dir, "the data directory %s cannot be made: %v", dir, cause(err)).Because(err)
	}
	path := filepath.Join(dir, "lock")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fail.Errorf(op, fail.Invalid, dir, "the data directory %s cannot be written: %v", dir, cause(err)).Because(err)
	}
	if err := own(f); err != nil {
		who, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fail.Errorf(op, fail.Invalid, dir, "the data directory %s cannot be locked: %v", dir, err).Because(err)
		}
		return nil, fail.Errorf(op, fail.Invalid, dir,
			"the data directory %s is in use by another gateway (process %s); stop it or choose another directory", dir, strings.TrimSpace(string(who)))
	}
	if err := f.Truncate(0); err == nil {
		_, _ = fmt.Fprintf(f, "%d\n", os.Getpid())
	}
	return f, nil
}

// own locks a file for this process. A process that a killed gateway was just
// about to start has its descriptors, and so the lock, for a moment more.
func own(f *os.File) error {
	for tries := 0; ; tries++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || tries == 100 {
			return err
		}
		<-time.After(10 * time.Millisecond)
	}
}

// cause gives an error of the file system without the path.
func cause(err error) error {
	if e, ok := errors.AsType[*os.PathError](err); ok {
		return e.Err
	}
	return err
}

// startEmbedded starts an etcd on its own in the directory. It listens nowhere:
// its one client is in this process.
func startEmbedded(ctx context.Context, o *Options, log *zap.Logger, dead <-chan error) (*embed.Etcd, error) {
	const op = "store.Open"
	cfg := embed.NewConfig()
	cfg.Name = "portolan"
	cfg.Dir = filepath.Join(o.Dir, "etcd")
	cfg.ListenPeerUrls, cfg.ListenClientUrls, cfg.ListenClientHttpUrls = nil, nil, nil
	// A member has a URL by which others would reach it. It is a name here, the same
	// at each start.
	self := url.URL{Scheme: "http", Host: "127.0.0.1:1"}
	cfg.AdvertisePeerUrls, cfg.AdvertiseClientUrls = []url.URL{self}, []url.URL{self}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.EnableGRPCGateway = false
	// Alone, it waits out one election at each start, and loses none.
	cfg.TickMs, cfg.ElectionMs = 20, 100
	cfg.WarningApplyDuration, cfg.WarningUnaryRequestDuration = time.Second, 2*time.Second
	cfg.QuotaBackendBytes = o.QuotaBytes
	// Nobody follows this member, so little of its log is kept, in memory and on disk.
	cfg.SnapshotCount, cfg.SnapshotCatchUpEntries = 1000, 16
	cfg.MaxWalFiles, cfg.MaxSnapFiles = 2, 2
	cfg.MaxTxnOps = embeddedOps
	cfg.MaxRequestBytes = embeddedBytes + 2<<20
	cfg.AutoCompactionMode = embed.CompactorModePeriodic
	cfg.AutoCompactionRetention = o.CompactionInterval.String()
	cfg.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)

	type started struct {
		e   *embed.Etcd
		err error
	}
	result := make(chan started, 1)
	go func() {
		e, err := embed.StartEtcd(cfg)
		if err == nil {
			select {
			case <-e.Server.ReadyNotify():
			case <-e.Server.StopNotify():
				err = errors.New("it stopped while starting")
			case <-ctx.Done():
				err = context.Cause(ctx)
			}
			if err != nil {
				e.Close()
			}
		}
		result <- started{e, err}
	}()
	var err error
	select {
	case r := <-result:
		if r.err == nil {
			return r.e, nil
		}
		err = r.err
	case err = <-dead: // the goroutine above is lost
	}
	return nil, fail.Errorf(op, fail.Unavailable, o.Dir, "the store in %s does not start: %v", o.Dir, err).Because(err)
}
