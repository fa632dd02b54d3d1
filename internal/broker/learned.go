package broker

import (
	"context"
	"fmt"
	"time"

	"github.com/portolan-project/portolan/internal/store"
)

// learnedPrefix begins the keys of what was learned of the sites: learned/REPLICA/PART.
const learnedPrefix = "learned/"

// mostLearned bounds one part of that, in bytes.
const mostLearned = 64 << 10

func (b *Broker) learnedPart(i int) string {
	return fmt.Sprintf("%s%s/%04d", learnedPrefix, store.Segment(b.cfg.Replica), i)
}

// keepLearned writes down what was learned since it was last.
func (b *Broker) keepLearned(ctx context.Context, sess store.Session, now time.Time) error {
	b.mu.Lock()
	if !b.learned {
		b.mu.Unlock()
		return nil
	}
	b.learned = false
	parts, err := b.book.Encode(mostLearned, now)
	b.mu.Unlock()
	if err == nil {
		err = b.putParts(ctx, sess, b.learnedPart, parts)
	}
	if err != nil {
		b.mu.Lock()
		b.learned = true
		b.mu.Unlock()
	}
	return err
}

// readLearned takes in what this replica and others learned before.
func (b *Broker) readLearned(ctx context.Context) error {
	recs, _, err := b.cfg.Store.ListRecords(ctx, learnedPrefix, store.RecordOptions{})
	if err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range recs {
		if err := b.book.Take(r.Value); err != nil {
			b.cfg.Log.Warn("a record of what was learned of sites can't be read and is left out", "record", r.Key, "cause", err)
		}
	}
	return nil
}
