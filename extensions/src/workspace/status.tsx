import { ReactWidget } from '@jupyterlab/ui-components';
import { CommandRegistry } from '@lumino/commands';
import { Menu } from '@lumino/widgets';
import React from 'react';

import { moonIcon } from '../icons';
import { useSeen, wordOf } from '../parts';
import { WorkspaceModel } from './model';

/** The workspace in the status bar, with a menu. */
export class StatusItem extends ReactWidget {
  constructor(
    private readonly model: WorkspaceModel,
    commands: CommandRegistry
  ) {
    super();
    this.addClass('tp-status');
    this.menu = new Menu({ commands });
    for (const command of ['torpor:sleep', 'torpor:stop', 'torpor:open-page']) {
      this.menu.addItem({ command });
    }
  }

  protected render(): JSX.Element {
    return <Item model={this.model} open={node => this.open(node)} />;
  }

  private open(node: HTMLElement): void {
    const { left, top } = node.getBoundingClientRect();
    this.menu.open(left, top, { verticalAlignment: 'bottom' } as object);
  }

  protected onAfterAttach(message: never): void {
    super.onAfterAttach(message);
    this.unwatch = this.model.workspace.watch();
  }

  protected onBeforeDetach(message: never): void {
    this.unwatch();
    super.onBeforeDetach(message);
  }

  private readonly menu: Menu;
  private unwatch: () => void = () => undefined;
}

function Item(props: {
  model: WorkspaceModel;
  open: (node: HTMLElement) => void;
}): JSX.Element {
  const { value, problem } = useSeen(props.model.workspace);
  const word = problem ? 'Not known' : wordOf(value?.status.phase ?? '');
  return (
    <button
      className="jp-StatusBar-TextItem tp-status-button"
      title={
        problem?.message ?? `Workspace ${props.model.config.name}: ${value?.status.message ?? ''}`
      }
      aria-haspopup="menu"
      onClick={event => props.open(event.currentTarget)}
    >
      <moonIcon.react tag="span" className="tp-icon" />
      {props.model.config.name}
      {word && `: ${word}`}
    </button>
  );
}
