package slurm

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/portolan-project/portolan/internal/fail"
)

// tokenLife is for how long tokens are asked for.
const tokenLife = 30 * time.Minute

// tokens are what slurmrestd knows us by: one in a file, or those that Slurm gives us.
type tokens struct {
	file string    // "": ask; "none": slurmrestd knows us otherwise
	ask  *commands // nil: there is nobody to ask

	mu   sync.Mutex
	kept map[string]token // by account
}

type token struct {
	text    string
	until   time.Time
	changed time.Time // of the file
}

// get gives an account's token, with some of its life left.
func (t *tokens) get(ctx context.Context, user string) (string, error) {
	switch {
	case t.file == "none":
		return "", nil
	case t.file != "":
		return t.read()
	case t.ask == nil:
		return "", fail.Errorf("slurm.token", fail.Unavailable, user, "there is no token for slurmrestd: the setting token names no file, and scontrol is not on this machine")
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if k, ok := t.kept[user]; ok && time.Until(k.until) > tokenLife/3 {
		return k.text, nil
	}
	text, err := t.ask.token(ctx, user, tokenLife)
	if err != nil {
		return "", fail.Errorf("slurm.token", fail.Unavailable, user, "Slurm gives no token for slurmrestd: %s", fail.Sentence(err)).Because(err)
	}
	if t.kept == nil {
		t.kept = map[string]token{}
	}
	t.kept[user] = token{text: text, until: time.Now().Add(tokenLife)}
	return text, nil
}

// read gives the token of the file, which somebody else renews.
func (t *tokens) read() (string, error) {
	const op = "slurm.token"
	info, err := os.Stat(t.file)
	if err != nil {
		return "", fail.Errorf(op, fail.Unavailable, t.file, "the token's file %s can't be read: %s", t.file, why(err)).Because(err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	k, ok := t.kept[""]
	if !ok || !k.changed.Equal(info.ModTime()) {
		data, err := os.ReadFile(t.file)
		if err != nil {
			return "", fail.Errorf(op, fail.Unavailable, t.file, "the token's file %s can't be read: %s", t.file, why(err)).Because(err)
		}
		k = token{text: strings.TrimPrefix(strings.TrimSpace(string(data)), "SLURM_JWT="), changed: info.ModTime()}
		k.until = expiry(k.text)
		t.kept = map[string]token{"": k}
	}
	switch {
	case k.text == "" || strings.ContainsAny(k.text, " \t\r\n"):
		return "", fail.Errorf(op, fail.Unavailable, t.file, "%s holds no token", t.file)
	case !k.until.IsZero() && time.Now().After(k.until):
		return "", fail.Errorf(op, fail.Unavailable, t.file, "the token in %s is no longer valid since %s; put a fresh one there", t.file, k.until.UTC().Format(time.RFC3339))
	}
	return k.text, nil
}

// expiry reads when a token ends; the zero time if it does not say. Whether it is
// genuine is for Slurm to judge.
func expiry(text string) time.Time {
	claims := jwt.RegisteredClaims{}
	if _, _, err := jwt.NewParser().ParseUnverified(text, &claims); err != nil || claims.ExpiresAt == nil {
		return time.Time{}
	}
	return claims.ExpiresAt.Time
}

// forget drops a token that was refused.
func (t *tokens) forget(user string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.kept, user)
	delete(t.kept, "")
}
