package service

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"gopkg.in/natefinch/lumberjack.v2"

	"smime-agent/platform"
)

// logs are the two files of the service: what it does, for engineers, and the
// audit trail, for auditors. Both rotate by size, so that neither fills a disk.
type logs struct {
	Log   *slog.Logger
	level *slog.LevelVar
	audit *lumberjack.Logger
	file  *lumberjack.Logger
}

// openLogs makes the folder if need be. console also gets the log, where the
// service runs in somebody's terminal.
func openLogs(dir string, maxSizeMB, maxFiles int, level slog.Level, console io.Writer) (*logs, error) {
	if err := platform.PrivateDir(dir); err != nil {
		return nil, err
	}
	l := &logs{level: new(slog.LevelVar)}
	l.level.Set(level)
	l.file = rotating(filepath.Join(dir, "agent.log"), maxSizeMB, maxFiles)
	l.audit = rotating(filepath.Join(dir, "audit.log"), maxSizeMB, maxFiles)
	for _, r := range []*lumberjack.Logger{l.file, l.audit} {
		if err := regular(r.Filename); err != nil {
			return nil, err
		}
	}
	var out io.Writer = l.file
	if console != nil {
		out = io.MultiWriter(l.file, console)
	}
	l.Log = slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: l.level}))
	return l, nil
}

func rotating(path string, maxSizeMB, maxFiles int) *lumberjack.Logger {
	return &lumberjack.Logger{Filename: path, MaxSize: maxSizeMB, MaxBackups: maxFiles}
}

// regular refuses to write through a link.
func regular(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return &fs.PathError{Op: "open log", Path: path, Err: errors.New("not a regular file")}
	}
	return nil
}

func (l *logs) close() error { return errors.Join(l.file.Close(), l.audit.Close()) }
