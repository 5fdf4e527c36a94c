import { CommandRegistry } from '@lumino/commands';
import {
  addBelowIcon,
  caretDownIcon,
  caretRightIcon,
  refreshIcon,
  spreadsheetIcon,
  usersIcon
} from '@jupyterlab/ui-components';
import React, { useEffect, useLayoutEffect, useRef, useState } from 'react';

import { Problem } from '../api';
import {
  asOf,
  IconButton,
  Phase,
  Section,
  Trouble,
  useSeen,
  wordOf
} from '../parts';
import { Dataset } from '../resources';
import { Details } from './details';
import { dragCell } from './insert';
import { DataModel, IBranch } from './model';
import { keepReachable, moveTo, onKey } from './tree';

const PAUSE_IN_TYPING_MS = 250;

interface IShared {
  model: DataModel;
  commands: CommandRegistry;
}

interface IOpen {
  isOpen: (key: string, byDefault: boolean) => boolean;
  toggle: (key: string, byDefault: boolean) => void;
}

export function DataSection(
  props: IShared & { said: Problem | null }
): JSX.Element {
  const { model, commands } = props;
  const { value, problem } = useSeen(model.tree);
  const refresh = (
    <IconButton
      icon={refreshIcon}
      label="Look again"
      onClick={() => void commands.execute('torpor:refresh')}
    />
  );
  return (
    <Section title="Data" count={value?.count} grows={2} actions={refresh}>
      <Search model={model} />
      <Trouble problem={problem} said={props.said} />
      {value?.count === 0 && <Empty searched={model.search} />}
      {value && value.count > 0 && (
        <Tree model={model} commands={commands} branches={value.branches} />
      )}
      {value?.more && (
        <p className="tp-empty">There are more datasets. Search to find them.</p>
      )}
    </Section>
  );
}

function Empty(props: { searched: string }): JSX.Element {
  return (
    <p className="tp-empty">
      {props.searched
        ? `No dataset has “${props.searched}” in its name.`
        : 'No datasets yet. A tenant’s admin registers a source and its datasets on the platform’s page or with the command torpor datasets.'}
    </p>
  );
}

function Search(props: { model: DataModel }): JSX.Element {
  const [word, setWord] = useState(props.model.search);
  useEffect(() => {
    const timer = setTimeout(() => {
      props.model.search = word.trim();
    }, PAUSE_IN_TYPING_MS);
    return () => clearTimeout(timer);
  }, [word, props.model]);
  return (
    <input
      type="search"
      className="tp-search"
      placeholder="Search datasets"
      aria-label="Search datasets"
      value={word}
      onChange={event => setWord(event.target.value)}
    />
  );
}

function Tree(props: IShared & { branches: IBranch[] }): JSX.Element {
  const [turned, setTurned] = useState<ReadonlySet<string>>(new Set());
  const node = useRef<HTMLUListElement>(null);
  const isOpen = (key: string, byDefault: boolean) =>
    turned.has(key) !== byDefault;
  const toggle = (key: string) =>
    setTurned(before => {
      const after = new Set(before);
      if (!after.delete(key)) {
        after.add(key);
      }
      return after;
    });
  useLayoutEffect(() => {
    if (node.current) {
      keepReachable(node.current);
    }
  });
  return (
    <ul
      ref={node}
      role="tree"
      className="tp-tree"
      aria-label="Datasets by tenant"
      onKeyDown={event =>
        onKey(event, item => toggle(item.dataset.key as string))
      }
    >
      {props.branches.map(branch => (
        <Branch
          key={branch.tenant}
          {...props}
          isOpen={isOpen}
          toggle={toggle}
          branch={branch}
        />
      ))}
    </ul>
  );
}

function Branch(props: IShared & IOpen & { branch: IBranch }): JSX.Element {
  const { branch, isOpen, toggle } = props;
  const open = isOpen(branch.tenant, true);
  const Caret = open ? caretDownIcon : caretRightIcon;
  return (
    <li
      role="treeitem"
      aria-level={1}
      aria-expanded={open}
      aria-label={branch.title}
      data-key={branch.tenant}
      tabIndex={-1}
    >
      <div
        className="tp-row tp-row-tenant"
        onClick={event => {
          focusItem(event.currentTarget);
          toggle(branch.tenant, true);
        }}
      >
        <Caret.react tag="span" className="tp-icon" />
        <usersIcon.react tag="span" className="tp-icon" />
        <span className="tp-row-name">{branch.title}</span>
        <span className="tp-count">{branch.datasets.length}</span>
      </div>
      {open && (
        <ul role="group">
          {branch.datasets.map(dataset => (
            <Leaf key={dataset.id} {...props} dataset={dataset} />
          ))}
        </ul>
      )}
    </li>
  );
}

function Leaf(props: IShared & IOpen & { dataset: Dataset }): JSX.Element {
  const { dataset, model, commands, isOpen, toggle } = props;
  const { status } = dataset;
  const open = isOpen(dataset.id, false);
  const Caret = open ? caretDownIcon : caretRightIcon;
  const said = summary(dataset);
  const run = (command: string) =>
    void commands.execute(command, { id: dataset.id });
  return (
    <li
      role="treeitem"
      aria-level={2}
      aria-expanded={open}
      aria-label={`${dataset.name}, ${said}`}
      data-key={dataset.id}
      tabIndex={-1}
    >
      <div
        className="tp-row"
        onClick={event => {
          focusItem(event.currentTarget);
          if (event.detail < 2) {
            toggle(dataset.id, false);
          }
        }}
        onDoubleClick={() => status.as_of && run('torpor:preview-dataset')}
        onPointerDown={event => {
          if (status.code && event.button === 0) {
            dragCell(event, dataset.name, status.code);
          }
        }}
      >
        <Caret.react tag="span" className="tp-icon" />
        <spreadsheetIcon.react tag="span" className="tp-icon" />
        <span className="tp-row-text">
          <span className="tp-row-name" title={dataset.name}>
            {dataset.name}
          </span>
          <span className="tp-row-sub">
            {status.phase !== 'READY' && <Phase phase={status.phase} short />}
            <span className="tp-ellipsis" title={said}>
              {said}
            </span>
          </span>
        </span>
        {status.code && (
          <IconButton
            icon={addBelowIcon}
            label={`Insert ${dataset.name} into the notebook`}
            tabIndex={-1}
            onClick={event => {
              event.stopPropagation();
              if (event.detail < 2) {
                run('torpor:insert-dataset');
              }
            }}
          />
        )}
      </div>
      {open && <Details dataset={dataset} model={model} commands={commands} />}
    </li>
  );
}

function summary({ status }: Dataset): string {
  if (!status.as_of) {
    return status.message || wordOf(status.phase);
  }
  const rows = status.rows === null ? '' : `${status.rows.toLocaleString()} rows, `;
  return `${rows}${asOf(status.as_of)}`;
}

function focusItem(row: HTMLElement): void {
  const tree = row.closest<HTMLElement>('[role="tree"]');
  if (tree) {
    moveTo(tree, row.closest<HTMLElement>('[role="treeitem"]'));
  }
}
