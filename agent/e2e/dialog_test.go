//go:build linux

package e2e_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"smime-agent/agent/e2e"
	"smime-agent/agent/enroll"
	"smime-agent/agent/status"
	"smime-agent/platform/platformtest"
)

// screen is a display that nobody sees.
type screen struct {
	w       *world
	display string
	// buffer is what is on it, as X window dump.
	buffer string
}

func (w *world) screen() *screen {
	w.t.Helper()
	platformtest.NeedPrograms(w.t, "Xvfb", "xdotool", "zenity", "fc-list")
	read, write, err := os.Pipe()
	w.must(err)
	defer read.Close()
	s := &screen{w: w, buffer: filepath.Join(w.Dir, "Xvfb_screen0")}
	cmd := exec.Command("Xvfb", "-displayfd", "3", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-fbdir", w.Dir)
	cmd.ExtraFiles = []*os.File{write}
	w.must(cmd.Start())
	w.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	w.must(write.Close())
	number, err := bufio.NewReader(read).ReadString('\n')
	w.must(err)
	s.display = ":" + strings.TrimSpace(number)
	return s
}

// xdotool uses keyboard and mouse of the screen.
func (s *screen) xdotool(args ...string) string {
	s.w.t.Helper()
	cmd := exec.CommandContext(s.w.within(), "xdotool", args...)
	cmd.Env = append(os.Environ(), "DISPLAY="+s.display)
	out, err := cmd.CombinedOutput()
	if err != nil {
		s.w.t.Fatalf("xdotool %v: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// press presses keys; without a window manager they go where the mouse is.
func (s *screen) press(keys ...string) {
	s.w.t.Helper()
	s.xdotool("mousemove", "512", "345", "sleep", "0.3")
	for _, k := range keys {
		s.xdotool("key", k, "sleep", "0.1")
	}
}

// keep saves what is on the screen where $SMIME_AGENT_ARTIFACTS says, and
// demands in any case that something is.
func (s *screen) keep(name string) {
	s.w.t.Helper()
	img, err := readDump(s.buffer)
	s.w.must(err)
	if blank(img) {
		s.w.t.Error("the screen is empty")
	}
	dir := os.Getenv("SMIME_AGENT_ARTIFACTS")
	if dir == "" {
		return
	}
	s.w.must(os.MkdirAll(dir, 0o755))
	f, err := os.Create(filepath.Join(dir, name+".png"))
	s.w.must(err)
	s.w.must(errors.Join(png.Encode(f, img), f.Close()))
}

// readDump reads a file in XWD format (X11/XWDFile.h): 25 words of header, big
// endian, a name, colors of 12 bytes, then the pixels, here in 32 bits each.
func readDump(path string) (*image.RGBA, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if len(raw) < 100 {
		return nil, errors.New("no X window dump")
	}
	word := func(i int) int { return int(binary.BigEndian.Uint32(raw[4*i:])) }
	const pixmapWidth, pixmapHeight, bitsPerPixel, bytesPerLine, colors = 4, 5, 11, 12, 19
	start, width, height, line := word(0)+12*word(colors), word(pixmapWidth), word(pixmapHeight), word(bytesPerLine)
	if word(1) != 7 || word(bitsPerPixel) != 32 || len(raw) < start+line*height {
		return nil, errors.New("not the X window dump that was expected")
	}
	img := image.NewRGBA(image.Rect(0, 0, width, height))
	for y := range height {
		for x := range width {
			p := raw[start+y*line+4*x:]
			img.SetRGBA(x, y, color.RGBA{p[2], p[1], p[0], 255})
		}
	}
	return img, nil
}

func blank(img *image.RGBA) bool {
	first := img.RGBAAt(0, 0)
	for y := range img.Rect.Dy() {
		for x := range img.Rect.Dx() {
			if img.RGBAAt(x, y) != first {
				return false
			}
		}
	}
	return true
}

// TestConsentDialog answers the helper's real dialog with keyboard and mouse, in
// both languages. A stray Enter only puts it off.
func TestConsentDialog(t *testing.T) {
	for _, c := range []struct {
		name, locale, font string
		keys               []string
		want               enroll.State
		verdict            enroll.Verdict
	}{
		{"en-approve", "en_US.UTF-8", "", []string{"Tab", "Tab", "Return"}, enroll.Active, enroll.Approve},
		{"en-stray-enter", "en_US.UTF-8", "", []string{"Return"}, enroll.Wanted, enroll.Later},
		{"zh-approve", "zh_CN.UTF-8", ":lang=zh-cn", []string{"Tab", "Tab", "Return"}, enroll.Active, enroll.Approve},
		{"zh-decline", "zh_CN.UTF-8", ":lang=zh-cn", []string{"Tab", "Return"}, enroll.Wanted, enroll.Decline},
	} {
		t.Run(c.name, func(t *testing.T) {
			onlyFull(t, "it needs a screen")
			t.Parallel()
			w := company(t, func(w *e2e.World) { w.Consent = "ask" })
			s := w.screen()
			if c.font != "" {
				fonts, err := exec.CommandContext(t.Context(), "fc-list", c.font).Output()
				platformtest.Need(t, "a font with Chinese characters", err == nil && len(fonts) > 0)
			}
			w.open()
			w.login(e2e.HelperOptions{Env: []string{"DISPLAY=" + s.display, "LC_ALL=" + c.locale, "LANG=" + c.locale, "LANGUAGE="}})
			s.xdotool("search", "--sync", "--onlyvisible", "--name", "Example GmbH")
			time.Sleep(500 * time.Millisecond) // the window is there before its content
			s.keep("consent-" + c.name)
			s.press(c.keys...)
			r := w.await("the answer", func(r status.Report) bool {
				x, ok := credential(r, alice, c.want)
				return ok && x.Consent != nil && x.Consent.Verdict == c.verdict
			})
			if x, _ := credential(r, alice, c.want); x.State == enroll.Active && !x.Proof.OK() {
				t.Errorf("proof %+v", x.Proof)
			}
			if c.want == enroll.Wanted && len(w.ledger()) > 0 {
				t.Error("a certificate without consent")
			}
		})
	}
}
