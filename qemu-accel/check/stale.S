/*
 * A guest that calls functions which another node rewrites while it does (stale_writer.c), on
 * every vCPU. Multiboot, 32 bits, no paging: all memory can be executed.
 *
 * The writer stores a number into the functions, then the same number as `request`.
 * So whoever has read a request must be returned at least that number. One function
 * lies in two pages, and only its second is rewritten.
 *
 * With `mode` 1 it increments a word that is not aligned instead: TCG does that with all
 * other vCPUs stopped, as a load and a store.
 */
#define CODE    0x400000
#define PLAIN   (CODE + 0x100) /* mov $imm32, %eax; ret */
#define ACROSS  (CODE + 0xffe) /* the same; its last four bytes are in the next page */
#define REQUEST 0x500000
#define MODE    (REQUEST + 4)
#define COUNT   (REQUEST + 8)
#define WORD    0x700005
#define STACK   0x680000 /* a page for each vCPU, which nobody else looks at */
#define ANSWER  0x600000 /* likewise, for the writer: */
#define SEEN    0
#define ERRORS  4
#define ASKED   8 /* of the first error: request, value */
#define GOT     12
#define READY   16
#define DONE    20

#define LAPIC      0xfee00000
#define TRAMPOLINE 0x8000

	.text
	.code32
	.globl _start
	.align 4
	.long 0x1badb002, 0, -0x1badb002
_start:
	cli
	movb $0xb8, PLAIN
	movl $0, PLAIN + 1
	movb $0xc3, PLAIN + 5
	movb $0xb8, ACROSS
	movb $0, ACROSS + 1
	movl $0xc3000000, ACROSS + 2
	lgdt gdt_pointer
	ljmp $8, $1f
1:	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	/* The other vCPUs: INIT, SIPI. */
	mov $trampoline, %esi
	mov $TRAMPOLINE, %edi
	mov $trampoline_end - trampoline, %ecx
	rep movsb
	orl $0x100, LAPIC + 0xf0
	movl $0xc4500, LAPIC + 0x300
	mov $10000000, %ecx
2:	dec %ecx
	jnz 2b
	movl $0xc4600 | TRAMPOLINE >> 12, LAPIC + 0x300

main:
	mov LAPIC + 0x20, %ebx
	shr $24, %ebx
	shl $12, %ebx
	add $ANSWER, %ebx
	lea STACK - ANSWER + 0x1000(%ebx), %esp
	xor %edi, %edi
	movl $1, READY(%ebx)
again:
	mov REQUEST, %ebp
	call *plain
	cmp %ebp, %eax
	jb bad
	call *across
	shr $8, %eax
	cmp %ebp, %eax
	jb bad
said:
	cmp %ebp, %edi
	je again
	mov %ebp, %edi
	mov %ebp, SEEN(%ebx)
	cmpl $1, MODE
	jne again
	mov COUNT, %ecx
3:	lock incl WORD
	dec %ecx
	jnz 3b
	movl $1, DONE(%ebx)
4:	hlt
	jmp 4b
bad:
	incl ERRORS(%ebx)
	cmpl $1, ERRORS(%ebx)
	jne said
	mov %ebp, ASKED(%ebx)
	mov %eax, GOT(%ebx)
	jmp said

plain:	.long PLAIN
across:	.long ACROSS

	.code16
trampoline:
	cli
	xor %ax, %ax
	mov %ax, %ds
	lgdtl TRAMPOLINE + pointer_copy - trampoline
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $8, $other
pointer_copy:
	.word gdt_end - gdt - 1
	.long gdt
trampoline_end:

	.code32
other:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	jmp main

	.align 8
gdt:	.quad 0, 0x00cf9a000000ffff, 0x00cf92000000ffff
gdt_end:
gdt_pointer:
	.word gdt_end - gdt - 1
	.long gdt
