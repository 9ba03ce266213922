package main

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"time"

	"gopkg.in/natefinch/lumberjack.v2"

	"smime-agent/agent/enroll"
	"smime-agent/platform"
)

// Bounds of the log on disk: at most 4 files of 5 MB.
const (
	logMegabytes = 5
	logBackups   = 3
)

// openLog logs to helper.log in the user's state folder, as JSON. Where that
// cannot be, it logs to fallback: a helper without a log still serves.
func openLog(dir string, fallback io.Writer) (*slog.Logger, func()) {
	if err := platform.PrivateDir(dir); err != nil {
		log := slog.New(slog.NewJSONHandler(fallback, nil))
		log.Warn("no log file", "error", err.Error())
		return log, func() {}
	}
	file := &lumberjack.Logger{Filename: filepath.Join(dir, "helper.log"), MaxSize: logMegabytes, MaxBackups: logBackups}
	return slog.New(slog.NewJSONHandler(file, nil)), func() { _ = file.Close() }
}

// logged notes how each task ended. Errors stop here: the service gets them too,
// but the user's own log is what a person sees first.
type logged struct {
	enroll.Session
	log    *slog.Logger
	thrift *platform.Thrift
}

func (l logged) begin() time.Time {
	l.thrift.Stir()
	return time.Now()
}

func (l logged) Inventory(ctx context.Context, modules []enroll.Module) (enroll.Inventory, error) {
	l.thrift.Stir()
	return l.Session.Inventory(ctx, modules)
}

func (l logged) note(task string, id enroll.ID, store string, start time.Time, err error) {
	took := time.Since(start).Round(time.Millisecond).String()
	if err != nil {
		e := enroll.AsError(err)
		l.log.Warn("task failed", "task", task, "enrollment", id, "store", store, "took", took, "kind", e.Kind, "code", e.Code, "error", e.Error())
		return
	}
	l.log.Info("task done", "task", task, "enrollment", id, "store", store, "took", took)
}

func (l logged) MakeRequest(ctx context.Context, w enroll.RequestWanted) (enroll.RequestMade, error) {
	start := l.begin()
	made, err := l.Session.MakeRequest(ctx, w)
	l.note("request", w.ID, w.Store, start, err)
	return made, err
}

func (l logged) Install(ctx context.Context, w enroll.InstallWanted) error {
	start := l.begin()
	err := l.Session.Install(ctx, w)
	l.note("install", w.ID, w.Store, start, err)
	return err
}

func (l logged) Prepare(ctx context.Context, w enroll.PrepareWanted) ([]enroll.MailAccount, error) {
	start := l.begin()
	all, err := l.Session.Prepare(ctx, w)
	l.note("prepare", w.ID, w.Store, start, err)
	return all, err
}

func (l logged) Prove(ctx context.Context, w enroll.ProofWanted) (enroll.Proof, error) {
	start := l.begin()
	p, err := l.Session.Prove(ctx, w)
	l.note("prove", w.ID, w.Store, start, err)
	return p, err
}

func (l logged) Discard(ctx context.Context, store string, id enroll.ID, modules []enroll.Module) error {
	start := l.begin()
	err := l.Session.Discard(ctx, store, id, modules)
	l.note("discard", id, store, start, err)
	return err
}

func (l logged) EnterCode(ctx context.Context, q enroll.CodeQuestion) (string, error) {
	start := l.begin()
	code, err := l.Session.EnterCode(ctx, q)
	l.note("code", q.ID, "", start, err) // the code itself is nobody's to read
	return code, err
}

func (l logged) Ask(ctx context.Context, q enroll.Question) (enroll.Verdict, error) {
	start := l.begin()
	v, err := l.Session.Ask(ctx, q)
	l.note("ask", q.ID, "", start, err)
	return v, err
}

func (l logged) Publish(ctx context.Context, w enroll.PublishWanted) ([]byte, error) {
	start := l.begin()
	value, err := l.Session.Publish(ctx, w)
	l.note("publish", w.ID, w.Store, start, err)
	return value, err
}

func (l logged) FilePartners(ctx context.Context, certificates [][]byte) (enroll.PartnersFiled, error) {
	start := l.begin()
	done, err := l.Session.FilePartners(ctx, certificates)
	l.note("partners", "", "", start, err)
	return done, err
}
