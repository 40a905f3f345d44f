/* The bare guest of remote.sh: entry by multiboot, processors' start by SIPI, interrupts. */
	.set MAGIC, 0x1badb002
	.set TRAMPOLINE, 0x8000
	.set STACKS, 0x400000 /* 4 KiB for each processor, downwards from the next one's */

	.section .text
	.code32
	.long MAGIC, 0, -MAGIC

	.globl _start
_start:
	mov $STACKS, %esp
	lgdt gdt_at
	ljmp $8, $1f
1:	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov $trampoline, %esi
	mov $TRAMPOLINE, %edi
	mov $trampoline_end - trampoline, %ecx
	rep movsb
	call bsp_main
2:	hlt
	jmp 2b

	.globl ap_entry
ap_entry:
	mov $16, %eax
	mov %eax, %ds
	mov %eax, %es
	mov %eax, %ss
	mov 0xfee00020, %eax /* its interrupt controller's id: an access to a device */
	shr $24, %eax
	mov %eax, %ecx
	shl $12, %ecx
	lea STACKS(%ecx), %esp
	push %eax
	call ap_main
3:	cli
	hlt
	jmp 3b

	.code16
trampoline:
	cli
	xor %ax, %ax
	mov %ax, %ds
	lgdtl TRAMPOLINE + (gdt_low - trampoline)
	mov %cr0, %eax
	or $1, %al
	mov %eax, %cr0
	ljmpl $8, $ap_entry
	.balign 8
gdt_low:
	.word 23
	.long TRAMPOLINE + (table_low - trampoline)
	.balign 8
table_low:
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
trampoline_end:

	.code32
	.macro handler name, function
	.globl \name
\name:
	pusha
	cld
	call \function
	popa
	iret
	.endm
	handler on_ipi, count_ipi
	handler on_nmi, count_nmi
	handler on_spurious, count_spurious
	handler on_timer, count_timer
	handler on_serial, count_serial

	.balign 8
gdt_at:
	.word 23
	.long gdt
	.balign 8
gdt:
	.quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff

	.section .note.GNU-stack, "", @progbits
