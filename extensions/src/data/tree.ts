/** Moving in a tree by keyboard, as the ARIA practices ask for it. */

import React from 'react';

/** Return the items that are to be seen, from top to bottom. Closed branches render none. */
function items(tree: HTMLElement): HTMLElement[] {
  return [...tree.querySelectorAll<HTMLElement>('[role="treeitem"]')];
}

/** Make exactly one item reachable by Tab: the one that had the focus last, else the first. */
export function keepReachable(tree: HTMLElement): void {
  const all = items(tree);
  if (all.length > 0 && !all.some(item => item.tabIndex === 0)) {
    all[0].tabIndex = 0;
  }
}

export function moveTo(tree: HTMLElement, item: HTMLElement | null): void {
  if (item) {
    items(tree).forEach(each => (each.tabIndex = each === item ? 0 : -1));
    item.focus();
  }
}

/** Handle a key pressed on an item itself; `toggle` opens and closes the item that has the focus. */
export function onKey(
  event: React.KeyboardEvent<HTMLElement>,
  toggle: (item: HTMLElement) => void
): void {
  const tree = event.currentTarget;
  const item = event.target as HTMLElement;
  if (item.getAttribute('role') !== 'treeitem') {
    if (event.key === 'Escape') {
      moveTo(tree, item.closest<HTMLElement>('[role="treeitem"]'));
    }
    return;
  }
  const all = items(tree);
  const at = all.indexOf(item);
  const open = item.getAttribute('aria-expanded') === 'true';
  const parent = () =>
    item.parentElement?.closest<HTMLElement>('[role="treeitem"]') ?? null;
  const child = () => item.querySelector<HTMLElement>('[role="treeitem"]');
  const acts: Record<string, () => void> = {
    ArrowDown: () => moveTo(tree, all[at + 1] ?? null),
    ArrowUp: () => moveTo(tree, all[at - 1] ?? null),
    Home: () => moveTo(tree, all[0]),
    End: () => moveTo(tree, all[all.length - 1]),
    ArrowRight: () => (open ? moveTo(tree, child()) : toggle(item)),
    ArrowLeft: () => (open ? toggle(item) : moveTo(tree, parent())),
    Enter: () => toggle(item),
    ' ': () => toggle(item)
  };
  const act = acts[event.key];
  if (act) {
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
