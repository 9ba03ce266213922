package win32

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"unicode/utf16"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	procDialogBox        = user32.NewProc("DialogBoxIndirectParamW")
	procEndDialog        = user32.NewProc("EndDialog")
	procGetDlgItemText   = user32.NewProc("GetDlgItemTextW")
	procSetTimer         = user32.NewProc("SetTimer")
	procSetWindowLongPtr = user32.NewProc("SetWindowLongPtrW")
	procGetWindowLongPtr = user32.NewProc("GetWindowLongPtrW")
)

// EntryDialog asks for one line.
type EntryDialog struct {
	Title, Text, OK, Cancel string
	// Hidden shows dots instead of what is typed.
	Hidden bool
}

// Messages and styles of dialogs and their controls (winuser.h).
const (
	wmInitDialog = 0x0110
	wmCommand    = 0x0111
	wmTimer      = 0x0113
	wmClose      = 0x0010

	dsSetFont, dsModalFrame, dsSetForeground, dsCenter = 0x40, 0x80, 0x200, 0x800
	wsPopup, wsCaption, wsSysMenu                      = 0x80000000, 0x00c00000, 0x00080000
	wsChild, wsVisible, wsBorder, wsTabStop            = 0x40000000, 0x10000000, 0x00800000, 0x00010000
	wsExTopmost                                        = 0x8
	esAutoHScroll, esPassword, bsDefault               = 0x80, 0x20, 0x1

	// dwlpUser is where a dialog keeps a word of its owner: behind two pointers.
	dwlpUser = 16

	classButton, classEdit, classStatic = 0x0080, 0x0081, 0x0082
	editID                              = 1000
	pollTimer, pollEvery                = 1, 200 // milliseconds
	longestEntry                        = 1024   // UTF-16 units
)

// entering is an entry dialog on the screen.
type entering struct {
	ended func() bool
	text  string
	given bool
}

var entryProc = sync.OnceValue(func() uintptr {
	return syscall.NewCallback(func(window, message, w, l uintptr) uintptr {
		if message == wmInitDialog {
			_, _, _ = procSetWindowLongPtr.Call(window, dwlpUser, l)
			_, _, _ = procSetTimer.Call(window, pollTimer, pollEvery, 0)
			raise(window)
			return 1
		}
		kept, _, _ := procGetWindowLongPtr.Call(window, dwlpUser)
		// The word is the address that Enter pinned.
		e := *(**entering)(unsafe.Pointer(&kept))
		if e == nil {
			return 0
		}
		return e.handle(window, message, w)
	})
})

func (e *entering) handle(window, message, w uintptr) uintptr {
	switch {
	case message == wmCommand && w&0xffff == idOK:
		buffer := make([]uint16, longestEntry)
		n, _, _ := procGetDlgItemText.Call(window, editID, uintptr(unsafe.Pointer(&buffer[0])), uintptr(len(buffer)))
		e.text, e.given = windows.UTF16ToString(buffer[:n]), true
		clear(buffer)
	case message == wmCommand && w&0xffff == idCancel, message == wmClose:
	case message == wmTimer && e.ended():
	default:
		return 0
	}
	_, _, _ = procEndDialog.Call(window, 1)
	return 1
}

// Enter shows the dialog until it is answered or ctx ends; given is false if the
// person gave nothing.
func Enter(ctx context.Context, d EntryDialog) (text string, given bool, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var pins runtime.Pinner
	defer pins.Unpin()
	e := &entering{ended: func() bool { return ctx.Err() != nil }}
	pins.Pin(e)
	template := d.template()
	pins.Pin(&template[0])
	result, _, err := procDialogBox.Call(0, uintptr(unsafe.Pointer(&template[0])), 0, entryProc(), uintptr(unsafe.Pointer(e)))
	if result != 1 {
		return "", false, fmt.Errorf("DialogBoxIndirectParamW: %w", failure(err))
	}
	return e.text, e.given && ctx.Err() == nil, nil
}

// Sizes in dialog units, which follow the font.
const (
	entryWidth, margin      = 240, 8
	lineHeight, lineLetters = 8, 56
	fieldHeight             = 14
	buttonWidth             = 64
)

// template writes DLGTEMPLATE and its DLGITEMTEMPLATEs (winuser.h).
func (d EntryDialog) template() []byte {
	textHeight := lines(d.Text) * lineHeight
	fieldTop := margin + textHeight + 4
	buttonTop := fieldTop + fieldHeight + margin
	var t template
	t.numbers32(dsSetFont|dsModalFrame|dsSetForeground|dsCenter|wsPopup|wsCaption|wsSysMenu, wsExTopmost)
	t.numbers16(4, 0, 0, entryWidth, buttonTop+fieldHeight+margin, 0, 0)
	t.text(d.Title)
	t.numbers16(9)
	t.text("MS Shell Dlg")
	var hidden uint32
	if d.Hidden {
		hidden = esPassword
	}
	inner := entryWidth - 2*margin
	t.item(classStatic, 0, margin, margin, inner, textHeight, editID+1, strings.ReplaceAll(d.Text, "&", "&&"))
	t.item(classEdit, wsBorder|wsTabStop|esAutoHScroll|hidden, margin, fieldTop, inner, fieldHeight, editID, "")
	t.item(classButton, wsTabStop|bsDefault, entryWidth-2*buttonWidth-margin-4, buttonTop, buttonWidth, fieldHeight, idOK, d.OK)
	t.item(classButton, wsTabStop, entryWidth-buttonWidth-margin, buttonTop, buttonWidth, fieldHeight, idCancel, d.Cancel)
	return t.data
}

// lines guesses how many lines a text fills; letters of East Asia are twice as
// wide.
func lines(s string) int {
	n := 0
	for line := range strings.SplitSeq(s, "\n") {
		width := 0
		for _, r := range line {
			width++
			if r >= 0x1100 {
				width++
			}
		}
		n += 1 + width/lineLetters
	}
	return n
}

type template struct{ data []byte }

func (t *template) numbers16(all ...int) {
	for _, n := range all {
		t.data = binary.LittleEndian.AppendUint16(t.data, uint16(n))
	}
}

func (t *template) numbers32(all ...uint32) {
	for _, n := range all {
		t.data = binary.LittleEndian.AppendUint32(t.data, n)
	}
}

func (t *template) text(s string) {
	for _, unit := range utf16.Encode([]rune(s)) {
		t.data = binary.LittleEndian.AppendUint16(t.data, unit)
	}
	t.numbers16(0)
}

func (t *template) item(class int, style uint32, x, y, width, height, id int, text string) {
	for len(t.data)%4 != 0 {
		t.data = append(t.data, 0)
	}
	t.numbers32(wsChild|wsVisible|style, 0)
	t.numbers16(x, y, width, height, id, 0xffff, class)
	t.text(text)
	t.numbers16(0)
}
