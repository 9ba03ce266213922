package win32

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	procTaskDialogIndirect = comctl32.NewProc("TaskDialogIndirect")
	procSendMessage        = user32.NewProc("SendMessageW")
	procSetForeground      = user32.NewProc("SetForegroundWindow")
	procSetWindowPos       = user32.NewProc("SetWindowPos")
	procPostThreadMessage  = user32.NewProc("PostThreadMessageW")
	procPeekMessage        = user32.NewProc("PeekMessageW")
	procGetProcessStation  = user32.NewProc("GetProcessWindowStation")
	procGetUserObjectInfo  = user32.NewProc("GetUserObjectInformationW")
)

// Choice is what was pressed; None that the dialog was closed, or that ctx ended.
type Choice int

// The choices.
const (
	None Choice = iota
	First
	Second
	Third
)

// Dialog asks a question with up to three buttons; a button without a word is
// left out.
type Dialog struct {
	Title, Text          string
	First, Second, Third string
}

// ErrNoDialog says that this system has no dialogs of that kind.
var ErrNoDialog = errors.New("no such dialog on this system")

// Flags, notifications and messages of task dialogs (commctrl.h).
const (
	tdfAllowCancel   = 0x0008
	tdfCallbackTimer = 0x0800
	tdfSizeToContent = 0x01000000
	tdnCreated       = 0
	tdnTimer         = 4
	tdmClickButton   = 0x0400 + 102
	idCancel         = 2
	firstButton      = 100
	tdInformation    = 0xfffd // TD_INFORMATION_ICON
)

// pending is a dialog on the screen. The system hands its address back to the
// callback.
type pending struct{ ended func() bool }

// taskDialogProc is made once: the runtime keeps a callback for ever.
var taskDialogProc = sync.OnceValue(func() uintptr {
	return syscall.NewCallback(func(window, message, _, _ uintptr, p *pending) uintptr {
		switch {
		case message == tdnCreated:
			raise(window)
		case message == tdnTimer && p.ended():
			_, _, _ = procSendMessage.Call(window, tdmClickButton, idCancel, 0)
		}
		return 0
	})
})

// raise brings a dialog before other programs' windows. Windows may refuse
// and let the taskbar blink instead.
func raise(window uintptr) {
	const topmost, noMove, noSize = ^uintptr(0), 2, 1
	_, _, _ = procSetWindowPos.Call(window, topmost, 0, 0, 0, 0, noMove|noSize)
	_, _, _ = procSetForeground.Call(window)
}

// memory holds what a call into the system points to in its place.
type memory struct{ pins runtime.Pinner }

func (m *memory) text(s string) uint64 {
	if s == "" {
		return 0
	}
	wide, err := windows.UTF16PtrFromString(s)
	if err != nil {
		return 0 // a NUL; callers have taken those out
	}
	m.pins.Pin(wide)
	return uint64(uintptr(unsafe.Pointer(wide)))
}

func (m *memory) bytes(b []byte) uint64 {
	m.pins.Pin(&b[0])
	return uint64(uintptr(unsafe.Pointer(&b[0])))
}

// TaskDialog shows a question until it is answered or ctx ends. It needs version
// 6 of the common controls, which a program asks for in its manifest;
// [ErrNoDialog] without.
func TaskDialog(ctx context.Context, d Dialog) (Choice, error) {
	if err := procTaskDialogIndirect.Find(); err != nil {
		return None, fmt.Errorf("%w: %w", ErrNoDialog, err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var m memory
	defer m.pins.Unpin()
	p := &pending{ended: func() bool { return ctx.Err() != nil }}
	m.pins.Pin(p)
	config := d.config(&m, uint64(uintptr(unsafe.Pointer(p))))
	var pressed int32
	result, _, _ := procTaskDialogIndirect.Call(uintptr(unsafe.Pointer(&config[0])), uintptr(unsafe.Pointer(&pressed)), 0, 0)
	if int32(result) < 0 {
		return None, fmt.Errorf("TaskDialogIndirect: HRESULT 0x%08x", uint32(result))
	}
	if pressed < firstButton || ctx.Err() != nil {
		return None, nil
	}
	return Choice(pressed-firstButton) + First, nil
}

// config writes TASKDIALOGCONFIG, which is packed to one byte (commctrl.h). What
// is not set is zero.
func (d Dialog) config(m *memory, data uint64) []byte {
	const (
		size          = 160
		flags         = 20
		windowTitle   = 28
		mainIcon      = 36
		content       = 52
		buttonCount   = 60
		buttons       = 64
		defaultButton = 72
		callback      = 140
		callbackData  = 148
	)
	list, count := d.buttons(m)
	c := make([]byte, size)
	order := binary.LittleEndian
	order.PutUint32(c, size)
	order.PutUint32(c[flags:], tdfAllowCancel|tdfCallbackTimer|tdfSizeToContent)
	order.PutUint64(c[windowTitle:], m.text(d.Title))
	order.PutUint64(c[mainIcon:], tdInformation)
	order.PutUint64(c[content:], m.text(d.Text))
	order.PutUint32(c[buttonCount:], count)
	order.PutUint64(c[buttons:], m.bytes(list))
	order.PutUint32(c[defaultButton:], d.stray())
	order.PutUint64(c[callback:], uint64(taskDialogProc()))
	order.PutUint64(c[callbackData:], data)
	return c
}

// stray is the button that a stray Enter presses, meant for another window: never
// the first, which agrees, if there is another; and the second, which decides
// nothing, before the third.
func (d Dialog) stray() uint32 {
	switch {
	case d.Second != "":
		return firstButton + 1
	case d.Third != "":
		return firstButton + 2
	}
	return firstButton
}

// buttons writes an array of TASKDIALOG_BUTTON, packed too.
func (d Dialog) buttons(m *memory) (list []byte, count uint32) {
	for i, word := range []string{d.First, d.Second, d.Third} {
		if word != "" {
			list = binary.LittleEndian.AppendUint32(list, uint32(firstButton+i))
			list = binary.LittleEndian.AppendUint64(list, m.text(strings.ReplaceAll(word, "&", "&&")))
			count++
		}
	}
	return list, count
}

// Answers of MessageBox, and the message that ends a thread's loop (winuser.h).
const (
	idOK, idYes, idNo = 1, 6, 7
	wmQuit            = 0x0012
)

// MessageBox asks where there is no task dialog. Its buttons are the system's
// own, so their words are told in the text.
func MessageBox(ctx context.Context, d Dialog) (Choice, error) {
	kind := uint32(windows.MB_ICONINFORMATION | windows.MB_SETFOREGROUND | windows.MB_TOPMOST | windows.MB_YESNOCANCEL | windows.MB_DEFBUTTON3)
	text, err := windows.UTF16PtrFromString(d.Text)
	if err != nil {
		return None, err
	}
	title, err := windows.UTF16PtrFromString(d.Title)
	if err != nil {
		return None, err
	}
	type answer struct {
		pressed int32
		err     error
	}
	answered := make(chan answer, 1)
	go func() {
		// The thread ends with this goroutine, because it is never unlocked: the
		// message that ends the box may stay behind in the thread's queue, and would
		// end the next dialog there.
		runtime.LockOSThread()
		// Only from the first look on the thread has a queue, and can be told to end the
		// box (PostThreadMessage, Remarks).
		var message [6]uint64 // MSG has 48 bytes
		_, _, _ = procPeekMessage.Call(uintptr(unsafe.Pointer(&message)), 0, 0, 0, 0)
		thread := windows.GetCurrentThreadId()
		stop := context.AfterFunc(ctx, func() { _, _, _ = procPostThreadMessage.Call(uintptr(thread), wmQuit, 0, 0) })
		defer stop()
		pressed, err := windows.MessageBox(0, text, title, kind)
		answered <- answer{pressed, err}
	}()
	got := <-answered
	switch {
	case ctx.Err() != nil:
		return None, nil
	case got.pressed == 0:
		return None, fmt.Errorf("MessageBoxW: %w", failure(got.err))
	case got.pressed == idYes:
		return First, nil
	case got.pressed == idNo:
		return Third, nil
	}
	return Second, nil
}

// Visible says that this process can show windows to somebody: a service cannot
// (GetUserObjectInformationW, WSF_VISIBLE).
func Visible() bool {
	const uoiFlags, visible = 1, 1
	station, _, _ := procGetProcessStation.Call()
	if station == 0 {
		return false
	}
	var flags struct{ inherit, reserved, flags uint32 }
	ok, _, _ := procGetUserObjectInfo.Call(station, uoiFlags, uintptr(unsafe.Pointer(&flags)), unsafe.Sizeof(flags), 0)
	return ok != 0 && flags.flags&visible != 0
}
