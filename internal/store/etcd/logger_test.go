package etcd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"go.uber.org/zap"
)

// What etcd says of a read whose reader has left is no error of the gateway's; the same
// of a disk is.
func TestLogger(t *testing.T) {
	const failed = "unexpected error during readonly txn"
	for _, c := range []struct {
		err  error
		told bool
	}{
		{fmt.Errorf("applyTxn: failed Range: rangeKeys: context cancelled: %w", context.Canceled), false},
		{errors.New("applyTxn: failed Range: input/output error"), true},
	} {
		var b bytes.Buffer
		newLogger(slog.New(slog.NewTextHandler(&b, nil)), func(error) {}).Error(failed, zap.Error(c.err))
		if told := strings.Contains(b.String(), "level=ERROR") && strings.Contains(b.String(), failed); told != c.told || !c.told && b.Len() > 0 {
			t.Errorf("%v: %q", c.err, b.String())
		}
	}
}
