//go:build linux || darwin

package e2e

import (
	"bytes"
	"cmp"
	"io"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Process is a program that runs until it is stopped or killed.
type Process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	tail tail
}

func (w *World) start(adjust func(*exec.Cmd), program string, args ...string) (*Process, error) {
	p := &Process{name: program, cmd: exec.Command(filepath.Join(w.Bin, program), args...), done: make(chan struct{})}
	p.cmd.Env = append(session(), "HOME="+cmp.Or(w.HomeDir, w.Dir))
	p.cmd.SysProcAttr = attributes()
	if adjust != nil {
		adjust(p.cmd)
	}
	var out io.Writer = &p.tail
	if w.Output != nil {
		out = io.MultiWriter(&p.tail, w.Output)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

// PID is the process's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Kill ends it without warning, as a power cut would, and waits.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Stop asks it to end, and waits; it is killed if it does not.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Output is the end of what it printed.
func (p *Process) Output() string { return p.tail.String() }

// tail keeps the last of what is written.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

const tailSize = 64 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.buf.Len() > tailSize {
		t.buf.Next(t.buf.Len() - tailSize/2)
	}
	return t.buf.Write(b)
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}
