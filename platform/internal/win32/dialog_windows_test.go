package win32

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	procFindWindow     = user32.NewProc("FindWindowW")
	procPostMessage    = user32.NewProc("PostMessageW")
	procSetDlgItemText = user32.NewProc("SetDlgItemTextW")
	procGetDlgItem     = user32.NewProc("GetDlgItem")
	procGetWindowLong  = user32.NewProc("GetWindowLongW")
)

// press waits for a window with that title and does something to it.
func press(t *testing.T, title string, do func(window uintptr)) {
	t.Helper()
	name, err := windows.UTF16PtrFromString(title)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 500 {
			if w, _, _ := procFindWindow.Call(0, uintptr(unsafe.Pointer(name))); w != 0 {
				time.Sleep(100 * time.Millisecond) // until it has its buttons
				do(w)
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		t.Errorf("no window %q", title)
	}()
}

func post(message, w, l uintptr) func(uintptr) {
	return func(window uintptr) { _, _, _ = procPostMessage.Call(window, message, w, l) }
}

func needDesktop(t *testing.T) {
	t.Helper()
	if !Visible() {
		t.Skip("SKIP: no desktop")
	}
}

func TestTaskDialog(t *testing.T) {
	needDesktop(t)
	d := Dialog{Text: "Zertifikat für müller@example.com? 证书?", First: "Ja & gut", Second: "Später", Third: "否"}
	for title, tt := range map[string]struct {
		button uintptr
		want   Choice
	}{"first": {firstButton, First}, "second": {firstButton + 1, Second}, "third": {firstButton + 2, Third}, "closed": {idCancel, None}} {
		d.Title = "task dialog " + title
		press(t, d.Title, post(tdmClickButton, tt.button, 0))
		got, err := TaskDialog(t.Context(), d)
		if errors.Is(err, ErrNoDialog) {
			t.Skipf("SKIP: %v (this test program has no manifest)", err)
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", title, got, err, tt.want)
		}
	}
}

// TestAStrayEnterAgreesToNothing: whoever types while a dialog comes up.
func TestAStrayEnterAgreesToNothing(t *testing.T) {
	needDesktop(t)
	const keyDown, enter = 0x0100, 0x0d
	for title, tt := range map[string]struct {
		dialog Dialog
		want   Choice
	}{
		"three": {Dialog{Text: "x", First: "yes", Second: "later", Third: "no"}, Second},
		"two":   {Dialog{Text: "x", First: "yes", Third: "no"}, Third},
		"one":   {Dialog{Text: "x", First: "good"}, First},
	} {
		tt.dialog.Title = "stray enter " + title
		press(t, tt.dialog.Title, post(keyDown, enter, 0))
		got, err := TaskDialog(t.Context(), tt.dialog)
		if errors.Is(err, ErrNoDialog) {
			t.Skipf("SKIP: %v (this test program has no manifest)", err)
		}
		if err != nil || got != tt.want {
			t.Errorf("%s: %v, %v, want %v", title, got, err, tt.want)
		}
	}
	press(t, "stray enter box", post(keyDown, enter, 0))
	if got, err := MessageBox(t.Context(), Dialog{Title: "stray enter box", Text: "x", First: "yes", Second: "later"}); err != nil || got != Second {
		t.Errorf("box: %v, %v", got, err)
	}
}

func TestDialogsEnd(t *testing.T) {
	needDesktop(t)
	for name, show := range map[string]func(context.Context) (Choice, error){
		"task": func(ctx context.Context) (Choice, error) {
			return TaskDialog(ctx, Dialog{Title: "task ends", Text: "x", First: "y"})
		},
		"box": func(ctx context.Context) (Choice, error) {
			return MessageBox(ctx, Dialog{Title: "box ends", Text: "x"})
		},
		"entry": func(ctx context.Context) (Choice, error) {
			_, given, err := Enter(ctx, EntryDialog{Title: "entry ends", Text: "x", OK: "OK", Cancel: "Cancel"})
			if given {
				return First, err
			}
			return None, err
		},
	} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		start := time.Now()
		got, err := show(ctx)
		cancel()
		if errors.Is(err, ErrNoDialog) {
			t.Logf("%s: %v", name, err)
			continue
		}
		if took := time.Since(start); err != nil || got != None || took < 900*time.Millisecond || took > time.Minute {
			t.Errorf("%s: %v, %v after %v", name, got, err, took)
		}
	}
}

func TestMessageBox(t *testing.T) {
	needDesktop(t)
	for id, want := range map[uintptr]Choice{idYes: First, idNo: Third, idCancel: Second} {
		title := fmt.Sprint("message box ", id)
		press(t, title, post(wmCommand, id, 0))
		if got, err := MessageBox(t.Context(), Dialog{Title: title, Text: "text"}); err != nil || got != want {
			t.Errorf("%d: %v, %v, want %v", id, got, err, want)
		}
	}
}

func TestEnter(t *testing.T) {
	needDesktop(t)
	const typed = "pässwörd 口令"
	wide, err := windows.UTF16PtrFromString(typed)
	if err != nil {
		t.Fatal(err)
	}
	for _, hidden := range []bool{true, false} {
		style := uintptr(0)
		title := fmt.Sprint("entry ", hidden)
		press(t, title, func(window uintptr) {
			field, _, _ := procGetDlgItem.Call(window, editID)
			style, _, _ = procGetWindowLong.Call(field, ^uintptr(15)) // GWL_STYLE
			_, _, _ = procSetDlgItemText.Call(window, editID, uintptr(unsafe.Pointer(wide)))
			post(wmCommand, idOK, 0)(window)
		})
		got, given, err := Enter(t.Context(), EntryDialog{Title: title, Text: "Password of the store & more:\nsecond line", OK: "OK", Cancel: "Abbrechen", Hidden: hidden})
		if err != nil || !given || got != typed {
			t.Errorf("%q, %t, %v", got, given, err)
		}
		if (style&esPassword != 0) != hidden {
			t.Errorf("hidden %t, style 0x%x", hidden, style)
		}
	}
	press(t, "entry", post(wmCommand, idCancel, 0))
	if got, given, err := Enter(t.Context(), EntryDialog{Title: "entry", Text: "x", OK: "OK", Cancel: "Cancel"}); err != nil || given || got != "" {
		t.Errorf("canceled: %q, %t, %v", got, given, err)
	}
}

func TestNotice(t *testing.T) {
	needDesktop(t)
	if err := Notice("S/MIME", "A certificate was renewed. 证书已续期。"); err != nil {
		t.Skipf("SKIP: no taskbar here: %v", err)
	}
}

func TestFit(t *testing.T) {
	room := make([]uint16, 4)
	fit(room, "ab𝄞c") // the clef is two units
	if got := windows.UTF16ToString(room); got != "ab" {
		t.Errorf("%q", got)
	}
}
