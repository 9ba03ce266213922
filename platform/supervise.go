package platform

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Pauses before a program that crashed is started again. One that ran for long
// enough begins with the shortest.
const (
	shortestPause = time.Second
	longestPause  = 20 * time.Second
	longEnough    = time.Minute
)

// maxLastWords is how much of what a crashed program wrote last is kept, in bytes.
const maxLastWords = 64 << 10

// Supervise runs this very program with other arguments, and again whenever it
// ends badly, until it ends well or ctx ends. crashed is told of each bad end with
// what the program wrote last to its standard error. It is for systems that start
// a program at logon and then forget it; systemd and launchd do this themselves.
func Supervise(ctx context.Context, args []string, crashed func(err error, lastWords []byte)) error {
	program, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	pause := shortestPause
	for {
		started := time.Now()
		words := &lastWords{}
		cmd := exec.CommandContext(ctx, program, args...)
		cmd.Stderr = words
		cmd.WaitDelay = time.Second
		err := cmd.Run()
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if _, ended := errors.AsType[*exec.ExitError](err); !ended {
			return fmt.Errorf("start %s: %w", program, err)
		}
		crashed(err, words.kept)
		if time.Since(started) > longEnough {
			pause = shortestPause
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		pause = min(2*pause, longestPause)
	}
}

// lastWords keeps the end of what is written.
type lastWords struct {
	mu   sync.Mutex
	kept []byte
}

func (w *lastWords) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kept = append(w.kept, p...)
	if over := len(w.kept) - maxLastWords; over > 0 {
		w.kept = append([]byte(nil), w.kept[over:]...)
	}
	return len(p), nil
}
